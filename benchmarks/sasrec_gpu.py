"""SASRec on MovieLens-1M on one GPU: accuracy, time to accuracy, targets/s and the share of the arithmetic ceiling.

    python benchmarks/sasrec_gpu.py --data data/ml-1m --out docs/results/sasrec_ml1m_gpu.json

Leave-one-out, full ranking over the catalogue, seen items excluded, the state chosen on validation. With
`--drop-last 1` each user's last event is removed first, so that the one before it is the test item: in the copy of the
data measured here the last event is far less predictable than any other (`last_event_check` in the output says by how
much).

The clock runs from the call of `fit` to the end of each validation; test scoring is outside of it.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from cowbird.data.sources.movielens_1m import MovieLens1M
from cowbird.data.split import LeaveOneOut, Split
from cowbird.data.types import Dataset
from cowbird.metrics.ranking import ndcg
from cowbird.victims.base import FitContext
from cowbird.victims.sequential import training
from cowbird.victims.sequential.sasrec import SASRec

TARGET = 0.175


def flop_per_target(spec: SASRec, items: int) -> float:
    """Multiply-adds count two; forward once, backward twice; causal attention half."""
    layer = 12 * spec.hidden**2 + 2 * spec.max_length * spec.hidden
    return 3.0 * (spec.layers * layer + 2 * spec.hidden * items)


def last_event_check(data: Dataset) -> dict[str, float]:
    """HR@10 of a count model (what followed the item before, within 3 steps) for each of the last events of a user."""
    events, ends, items = data.interactions.item, data.interactions.offsets[1:], len(data.items)
    counts = np.zeros((items, items), dtype=np.float32)
    for start, end in zip(data.interactions.offsets[:-1], ends, strict=True):
        known = events[start : end - 13]
        for lag in (1, 2, 3):
            np.add.at(counts, (known[:-lag], known[lag:]), 1)
    found: dict[str, float] = {}
    for back in (1, 2, 3, 5, 8):
        for lag in (1, 2, 3):
            scores = counts[events[ends - back - lag]]
            own = scores[np.arange(len(ends)), events[ends - back]]
            found[f"event -{back} from {lag} before"] = round(float(((scores >= own[:, None]).sum(1) <= 10).mean()), 4)
    return found


def one_fit(spec: SASRec, part: LeaveOneOut, seed: int, device: torch.device) -> dict[str, object]:
    """Train once and return what happened."""
    marks: list[tuple[int, float, float]] = []
    testing = 0.0
    test, original = part.test(), training._BestState.add

    def add(best: training._BestState, epoch: int, score: float) -> None:
        nonlocal testing
        original(best, epoch, score)
        torch.cuda.synchronize()
        now = time.perf_counter() - started - testing
        if best.epoch == epoch:
            marks.append((epoch, round(now, 2), round(float(np.mean(ndcg(fitted_of[0].rank_targets(test), 10))), 4)))
        testing = time.perf_counter() - started - now

    fitted_of: list[object] = []
    first = training._Fit.__init__

    def remember(self: training._Fit, fitted: object, *rest: object) -> None:
        fitted_of.append(fitted)  # type: ignore[arg-type]
        first(self, fitted, *rest)  # type: ignore[arg-type]

    training._BestState.add, training._Fit.__init__ = add, remember  # type: ignore[method-assign]
    try:
        started = time.perf_counter()
        fitted = spec.fit(part.training(), part.validation(), seed, FitContext(device))
        torch.cuda.synchronize()
        seconds = time.perf_counter() - started - testing
    finally:
        training._BestState.add, training._Fit.__init__ = original, first  # type: ignore[method-assign]
    epochs = fitted.validations[-1][0]
    targets = part.training().interactions.events - len(part.users)
    reached = [mark for mark in marks if mark[2] >= TARGET]
    started = time.perf_counter()
    ranks = fitted.rank_targets(test)
    return {
        "seed": seed,
        "epochs": epochs,
        "seconds": round(seconds, 2),
        "validation_ndcg10": round(max(score for _, score in fitted.validations), 4),
        "test_ndcg10": round(float(np.mean(ndcg(ranks, 10))), 4),
        "evaluation_seconds": round(time.perf_counter() - started, 3),
        "targets_per_second": round(targets * epochs / seconds),
        f"seconds_to_test_ndcg10_{TARGET}": reached[0][1] if reached else None,
        "best_so_far (epoch, seconds, test_ndcg10)": marks[:: max(1, len(marks) // 10)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--drop-last", type=int, default=0)
    parser.add_argument("--spec", default="{}", help="JSON of SASRec fields to change")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    data = MovieLens1M(path=arguments.data).load()
    kept = data.interactions.lengths - arguments.drop_last
    cut = data.interactions.take(data.interactions.offsets[:-1], kept)
    part = Split(cold_fraction=0).apply(Dataset(data.name, cut, data.users, data.items), 0).pretrain
    recipe = {"hidden": 128, "max_length": 100, "dropout": 0.3, "batch_size": 128, "epochs": 80, "validate_every": 2}
    spec = SASRec(**{**recipe, "patience": 8, **json.loads(arguments.spec)})
    torch.zeros(1, device=device)
    runs = [one_fit(spec, part, int(seed), device) for seed in arguments.seeds.split(",")]
    rate = statistics.median(run["targets_per_second"] for run in runs)  # type: ignore[type-var]
    record = {
        "device": torch.cuda.get_device_name(device),
        "torch": torch.__version__,
        "spec": spec.model_dump(),
        "drop_last": arguments.drop_last,
        "users": len(part.users),
        "items": len(data.items),
        "runs": runs,
        "tflop_per_second": round(rate * flop_per_target(spec, len(data.items)) / 1e12, 2),  # type: ignore[operator]
        "last_event_check": last_event_check(data),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
