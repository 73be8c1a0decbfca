"""Time RecBole's SASRec (``loss_type: CE``, its own trainer) on the common split.

Regime: ``prefix`` is the library's only one. Its sequential dataset turns every prefix of a training history into a
sample with one target, so an epoch uses each transition once and encodes up to fifty items for every target.
"""

import os
import tempfile
from pathlib import Path

from harness import BATCH, DROPOUT, HEADS, HIDDEN, LAYERS, MAX_LEN, RATE, K, Run, Split, parse

NAME = "common"
NOTES = (
    "regime prefix only (native); Adam; the clock holds Trainer._train_epoch alone, building the prefixes is in "
    "startup_seconds; the library's sequential evaluation does not filter seen items, so the ranking takes its "
    "full_sort_predict scores and masks them here, and valid_ndcg10 in the history is the library's own, unfiltered"
)
args = parse(__doc__, ["prefix"], eval_every=1, inner_size=True)


class Done(Exception):  # noqa: N818
    """Ends the training loop from its validation callback."""


def write_atomic(split: Split, folder: Path) -> None:
    """Write the library's atomic file, with the place in the history as the time, so that no two times tie."""
    (folder / NAME).mkdir()
    with (folder / NAME / f"{NAME}.inter").open("w") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for user, last in split.test.items():
            for place, item in enumerate([*split.known(user), last]):
                file.write(f"{user}\t{item}\t{place}\n")


def settings(folder: Path) -> dict[str, object]:
    """Return the library's configuration."""
    return {
        "data_path": str(folder),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "metrics": ["NDCG"],
        "topk": [K],
        "valid_metric": f"NDCG@{K}",
        "metric_decimal_place": 8,
        "MAX_ITEM_LIST_LENGTH": MAX_LEN,
        "loss_type": "CE",
        "train_neg_sample_args": None,
        "n_layers": LAYERS,
        "n_heads": HEADS,
        "hidden_size": HIDDEN,
        "inner_size": args.inner_size,
        "hidden_dropout_prob": DROPOUT,
        "attn_dropout_prob": DROPOUT,
        "learner": "adam",
        "learning_rate": RATE,
        "train_batch_size": BATCH,
        "epochs": args.epochs,
        "eval_step": args.eval_every,
        "stopping_step": args.epochs,  # the target or the clock stops the run, not patience
        "seed": args.seed,
        "worker": args.workers,
        "use_gpu": False,
        "show_progress": False,
    }


def rank(model, loader, dataset, seen: dict[int, list[int]]) -> dict[int, list[int]]:
    """Return each user's ten best items that are not in ``seen``."""
    import torch

    ranking: dict[int, list[int]] = {}
    model.eval()
    with torch.no_grad():
        for interaction, *_ in loader:
            users = [int(user) for user in dataset.id2token("user_id", interaction["user_id"].numpy())]
            scores = model.full_sort_predict(interaction).view(len(users), -1)
            scores[:, 0] = -torch.inf  # padding
            for row, user in enumerate(users):
                scores[row, [dataset.token2id("item_id", str(item)) for item in seen[user]]] = -torch.inf
            tops = dataset.id2token("item_id", torch.topk(scores, K).indices.numpy())
            ranking |= {user: [int(item) for item in top] for user, top in zip(users, tops, strict=True)}
    return ranking


def main(run: Run, folder: Path) -> None:
    """Train, rank and report."""
    import torch
    from harness import accuracy
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.sequential_recommender import SASRec
    from recbole.trainer import Trainer
    from recbole.utils import init_seed

    class Clocked(Trainer):
        """The library's trainer, with a clock around each half of an epoch."""

        def _train_epoch(self, *positional, **named):
            with run.train:
                return super()._train_epoch(*positional, **named)

        def _valid_epoch(self, *positional, **named):
            with run.valid:
                return super()._valid_epoch(*positional, **named)

    write_atomic(run.split, folder)
    os.chdir(folder)  # the library writes its logs and an empty checkpoint folder where it runs
    config = Config(model="SASRec", dataset=NAME, config_dict=settings(folder))
    init_seed(args.seed, reproducibility=False)
    torch.set_num_threads(args.threads)
    dataset = create_dataset(config)
    train, valid, test = data_preparation(config, dataset)
    model = SASRec(config, train.dataset)
    trainer = Clocked(config, model)
    seen = {user: run.split.known(user) for user in run.split.test}
    epochs = args.epochs

    def after_validation(epoch: int, score: float) -> None:
        nonlocal epochs
        result = accuracy(rank(model, test, dataset, seen), run.split.test)
        if run.validated(epoch + 1, float(score), result["ndcg10"], model.state_dict()):
            epochs = epoch + 1
            raise Done

    run.started(len(train.dataset))
    try:
        trainer.fit(
            train,
            valid if args.to_accuracy else None,
            verbose=False,
            saved=False,
            callback_fn=after_validation,
        )
    except Done:
        model.load_state_dict(run.best)
    with run.evaluation:
        ranking = rank(model, test, dataset, seen)
    run.emit(ranking, f"{NOTES}; feed-forward width {args.inner_size}; {args.workers} workers", epochs)


data = Split.read(args.data)
with tempfile.TemporaryDirectory() as scratch:
    main(Run("recbole", args, data), Path(scratch))
