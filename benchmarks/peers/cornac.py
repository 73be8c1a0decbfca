"""Time Cornac's SASRec (cross-entropy over shared samples, its own loop) on the common split.

Regime: ``prefix`` is the library's only one. Its session iterator makes a sample with one target out of every prefix of
a session, and here a user's history is one session.
"""

from harness import BATCH, DROPOUT, HEADS, HIDDEN, LAYERS, MAX_LEN, RATE, K, Run, Split, parse

NOTES = (
    "regime prefix only (native); the library has no full softmax: its loss 'ce' ranks each target against the batch's "
    "other targets and n_sample shared negatives, here as many as there are items, drawn by popularity to the power "
    "0.5 (its default); Adam betas (0.9, 0.98), fixed; train_seconds is the whole of fit, which builds the model too; "
    "ranking is its rank(), user by user, over all items but the seen ones; its feed-forward width is the hidden size"
)
args = parse(__doc__, ["prefix"])


def sessions(rows: dict[int, list[int]]) -> list[tuple[str, str, str, int]]:
    """Return (user, session, item, time) tuples, one session for each user, ids as the text the library expects."""
    return [(str(user), str(user), str(item), place) for user, row in rows.items() for place, item in enumerate(row)]


def main(run: Run) -> None:
    """Train, rank and report."""
    import numpy as np
    import torch
    from cornac.eval_methods import NextItemEvaluation
    from cornac.models import SASRec

    torch.set_num_threads(args.threads)
    split = run.split
    whole = {user: [*split.known(user), last] for user, last in split.test.items()}
    parts = NextItemEvaluation.from_splits(
        train_data=sessions(split.train), test_data=sessions(whole), fmt="USIT", seed=args.seed
    )
    size = len(split.items)
    model = SASRec(
        embedding_dim=HIDDEN,
        loss="ce",
        batch_size=BATCH,
        learning_rate=RATE,
        n_sample=size,
        n_epochs=args.epochs,
        max_len=MAX_LEN,
        num_blocks=LAYERS,
        num_heads=HEADS,
        dropout=DROPOUT,
        device="cpu",
        seed=args.seed,
    )
    targets = split.targets(args.regime)
    run.started(targets - (targets % BATCH == 1))  # the library leaves out a last batch of one
    with run.train:
        model.fit(parts.train_set)
    number = parts.global_iid_map
    name = {index: int(item) for item, index in number.items()}
    ranking: dict[int, list[int]] = {}
    with run.evaluation:
        for user in split.test:
            history = [number[str(item)] for item in split.known(user)]
            left = np.setdiff1d(np.arange(size), history)
            order, _ = model.rank(parts.global_uid_map[str(user)], left, k=K, history_items=history)
            ranking[user] = [name[int(index)] for index in order[:K]]
    run.emit(ranking, NOTES)


main(Run("cornac", args, Split.read(args.data)))
