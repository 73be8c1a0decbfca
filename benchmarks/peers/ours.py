"""Time Cowbird's SASRec on the common split, with the clocks and the line of JSON of the peers' scripts.

Regimes: ``last``, ``all`` and ``prefix``. Run it with the Python of Cowbird's own environment.
"""

import json

from harness import DROPOUT, HEADS, HIDDEN, LAYERS, MAX_LEN, RATE, K, Run, Split, parse

NOTES = "AdamW betas (0.9, 0.999), no weight decay; no dropout on attention weights; only real positions are scored"
args = parse(__doc__, ["last", "all", "prefix"], eval_every=2)


class ReachedError(Exception):
    """The target is reached, or the time is up."""


def main(run: Run) -> None:
    """Train, rank and report."""
    import numpy as np
    import torch

    from cowbird.data.split import Split as CowbirdSplit
    from cowbird.data.types import Dataset, Interactions, Items, Users
    from cowbird.metrics.ranking import ndcg
    from cowbird.victims.sequential import training
    from cowbird.victims.sequential.base import FittedSequential
    from cowbird.victims.sequential.sasrec import SASRec

    torch.set_num_threads(args.threads)
    catalogue = run.split.items
    code = {item: index for index, item in enumerate(catalogue)}
    users = list(run.split.test)
    histories = [[code[item] for item in [*run.split.known(user), run.split.test[user]]] for user in users]
    data = Dataset(
        "common",
        Interactions.from_lists(histories),
        Users(tuple(map(str, users))),
        Items.from_lists(map(str, catalogue)),
    )
    part = CowbirdSplit(cold_fraction=0).apply(data, 0).pretrain
    test = part.test()
    spec = SASRec(
        hidden=HIDDEN,
        layers=LAYERS,
        heads=HEADS,
        max_length=MAX_LEN,
        dropout=DROPOUT,
        batch_size=args.batch_size,
        learning_rate=RATE,
        regime=args.regime,
        epochs=args.epochs,
        validate_every=args.eval_every if args.to_accuracy else args.epochs,
        patience=None,
    )
    rank, add = FittedSequential.rank_targets, training._BestState.add
    models: list[FittedSequential] = []

    def validate(model: FittedSequential, queries: object) -> object:
        models[:] = [model]
        run.train.__exit__()
        with run.valid:
            return rank(model, queries)

    def added(best: training._BestState, epoch: int, score: float) -> None:
        add(best, epoch, score)
        if args.to_accuracy:
            found = float(np.mean(ndcg(rank(models[0], test), K)))
            if run.validated(epoch, score, found, models[0].network.state_dict()):
                raise ReachedError
        run.train.__enter__()

    FittedSequential.rank_targets, training._BestState.add = validate, added
    run.started()
    run.train.__enter__()
    epochs = args.epochs
    try:
        model = spec.fit(part.training(), part.validation(), args.seed)
        run.train.__exit__()
    except ReachedError:
        model, epochs = models[0], int(run.history[-1]["epoch"])
        model.network.load_state_dict(run.best)
    FittedSequential.rank_targets = rank
    with run.evaluation:
        best = model.recommend(test.history, K)
    ranking = {user: [catalogue[at] for at in row] for user, row in zip(users, best.tolist(), strict=True)}
    width = json.dumps({"batch_size": args.batch_size, "step": str(training.pick_dtype("auto", torch.device("cpu")))})
    run.emit(ranking, f"{NOTES}; {width}", epochs)


main(Run("cowbird", args, Split.read(args.data)))
