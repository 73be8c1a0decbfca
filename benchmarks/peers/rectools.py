"""Time RecTools' SASRecModel (softmax loss, Lightning inside) on the common split.

Regimes: ``last`` is the library's own (its data preparator keeps the end of each history); ``all`` passes each window
of a history off as a user of its own, so that an epoch uses every transition once. One sample for each prefix is not
supported.
"""

from harness import BATCH, DROPOUT, HEADS, HIDDEN, LAYERS, MAX_LEN, RATE, K, Run, Split, parse

NOTES = (
    "regimes last (native) and all (windows as users); Adam betas (0.9, 0.98), the library's default; every position "
    "of the batch is scored, padding too; the catalogue is the items of the training rows, so with last it is smaller "
    "and a test item outside it is a miss; the library's feed-forward width is the hidden size"
)
args = parse(__doc__, ["last", "all"])


def dataset(rows: dict[int, list[int]]):
    """Return the library's dataset, with the place in the history as the time, so that no two times tie."""
    import pandas as pd
    from rectools import Columns
    from rectools.dataset import Dataset

    events = [(user, item, place) for user, items in rows.items() for place, item in enumerate(items)]
    frame = pd.DataFrame(events, columns=[Columns.User, Columns.Item, Columns.Datetime])
    frame[Columns.Datetime] = pd.to_datetime(frame[Columns.Datetime], unit="s")
    frame[Columns.Weight] = 1.0
    return Dataset.construct(frame)


def trainer_of(run: Run):
    """Return the function that makes the Lightning trainer, with a callback around the training loop."""
    import pytorch_lightning

    class Clocks(pytorch_lightning.Callback):
        def on_train_start(self, trainer, module):
            run.started()
            run.train.__enter__()

        def on_train_end(self, trainer, module):
            run.train.__exit__()

        def __deepcopy__(self, memo):
            return self  # the library fits with a copy of the trainer

    def make():
        return pytorch_lightning.Trainer(
            max_epochs=args.epochs,
            min_epochs=args.epochs,
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[Clocks()],
        )

    return make


def main(run: Run) -> None:
    """Train, recommend and report."""
    import pytorch_lightning
    import torch
    from rectools import Columns
    from rectools.models import SASRecModel

    torch.set_num_threads(args.threads)
    pytorch_lightning.seed_everything(args.seed)
    model = SASRecModel(
        n_blocks=LAYERS,
        n_heads=HEADS,
        n_factors=HIDDEN,
        dropout_rate=DROPOUT,
        session_max_len=MAX_LEN,
        loss="softmax",
        lr=RATE,
        batch_size=BATCH,
        dataloader_num_workers=args.workers,
        recommend_torch_device="cpu",
        get_trainer_func=trainer_of(run),
    )
    model.fit(dataset(dict(enumerate(run.split.rows(args.regime)))))
    users = list(run.split.test)
    with run.evaluation:
        known = dataset({user: run.split.known(user) for user in users})
        table = model.recommend(users=users, dataset=known, k=K, filter_viewed=True)
    table = table.sort_values([Columns.User, Columns.Rank])
    ranking = {int(user): group.tolist() for user, group in table.groupby(Columns.User)[Columns.Item]}
    size = len(model.data_preparator.get_known_item_ids())
    run.emit(ranking, f"{NOTES}; {size} items in the catalogue; {args.workers} workers")


main(Run("rectools", args, Split.read(args.data)))
