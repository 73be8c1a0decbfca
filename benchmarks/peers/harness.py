"""What all the peer scripts share: arguments, data, clocks, the metrics and the line of JSON (standard library only).

Import this before anything else. The folder holds scripts that carry the names of the libraries they run, so importing
this module takes the folder off ``sys.path``: otherwise ``import recbole`` would find ``recbole.py``. It also points
file descriptor 1 at standard error, so that no library can print into the single line of JSON.
"""

import argparse
import csv
import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE]
STDOUT = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

HIDDEN, LAYERS, HEADS, MAX_LEN, DROPOUT, BATCH, RATE, K = 64, 2, 2, 50, 0.2, 256, 1e-3, 10


def since_process_start() -> float:
    """Return the age of this process in seconds, imports of the interpreter included (Linux)."""
    ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def parse(doc: str, regimes: Sequence[str], eval_every: int = 0, inner_size: bool = False) -> argparse.Namespace:
    """Parse the command line; the first regime is the library's own, ``eval_every`` > 0 adds time to accuracy."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.csv, valid.csv and test.csv")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    parser.add_argument("--regime", choices=regimes, default=regimes[0], help=f"the library's own: {regimes[0]}")
    parser.add_argument("--batch-size", type=int, default=BATCH, help="Cowbird's script alone reads it")
    parser.add_argument("--workers", type=int, default=0, help="data loading processes, where the library has them")
    if inner_size:
        parser.add_argument("--inner-size", type=int, default=HIDDEN, help="width of the feed-forward layer")
    if eval_every:
        parser.add_argument("--target-ndcg", type=float, help="stop once the model chosen on validation reaches this")
        parser.add_argument("--max-seconds", type=float, help="stop after this much training and validation")
        parser.add_argument("--eval-every", type=int, default=eval_every, help="epochs from validation to validation")
    args = parser.parse_args()
    sys.argv = sys.argv[:1]  # RecBole reads it as well
    args.to_accuracy = bool(eval_every) and not (args.target_ndcg is None and args.max_seconds is None)
    if args.to_accuracy:
        args.epochs = 100_000  # the target or the clock ends the run
    return args


@dataclass(frozen=True)
class Split:
    """The common data: each user's training items in order, and one held-out item each."""

    train: dict[int, list[int]]
    valid: dict[int, int]
    test: dict[int, int]

    @classmethod
    def read(cls, folder: Path) -> "Split":
        """Read the three files that data.py wrote; their rows are in order."""
        parts: dict[str, list[tuple[int, int]]] = {}
        for name in ("train", "valid", "test"):
            with (folder / f"{name}.csv").open(newline="", encoding="utf-8") as file:
                parts[name] = [(int(row["user"]), int(row["item"])) for row in csv.DictReader(file)]
        train: dict[int, list[int]] = {}
        for user, item in parts["train"]:
            train.setdefault(user, []).append(item)
        return cls(train, dict(parts["valid"]), dict(parts["test"]))

    @property
    def items(self) -> list[int]:
        """Return every item of the three parts, sorted."""
        return sorted({i for seq in self.train.values() for i in seq} | {*self.valid.values(), *self.test.values()})

    def known(self, user: int) -> list[int]:
        """Return everything that is known of the user at test time, in order."""
        return [*self.train[user], self.valid[user]]

    def rows(self, regime: str) -> list[list[int]]:
        """Return the training rows: at most MAX_LEN + 1 items each, so MAX_LEN inputs and as many targets.

        ``last`` keeps the end of each history. ``all`` cuts each history, from its end, into rows that share just the
        item on their border, so that every transition is a target exactly once.
        """
        if regime == "last":
            return [seq[-MAX_LEN - 1 :] for seq in self.train.values() if len(seq) > 1]
        ends = [(seq, end) for seq in self.train.values() for end in range(len(seq), 1, -MAX_LEN)]
        return [seq[max(0, end - MAX_LEN - 1) : end] for seq, end in ends]

    def targets(self, regime: str) -> int:
        """Return the number of real targets in one epoch; ``prefix`` and ``all`` both use each transition once."""
        if regime == "last":
            return sum(len(row) - 1 for row in self.rows("last"))
        return sum(len(seq) - 1 for seq in self.train.values())


def accuracy(ranking: Mapping[int, Sequence[int]], truth: Mapping[int, int]) -> dict[str, float]:
    """Return NDCG@10 and HR@10 over all users of ``truth``; a user without a ranking counts as a miss."""
    ranks = []
    for user, item in truth.items():
        top = list(ranking.get(user, ()))[:K]
        if item in top:
            ranks.append(top.index(item))
    gain = sum(1 / math.log2(rank + 2) for rank in ranks)
    return {"ndcg10": gain / len(truth), "hr10": len(ranks) / len(truth)}


@dataclass
class Clock:
    """Adds up the wall and CPU seconds of this process and its children while it runs."""

    wall: float = 0.0
    cpu: float = 0.0
    _since: tuple[float, float] = field(default=(0.0, 0.0), repr=False)

    def __enter__(self) -> "Clock":
        self._since = (time.perf_counter(), sum(os.times()[:4]))
        return self

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter() - self._since[0]
        self.cpu += sum(os.times()[:4]) - self._since[1]

    def __deepcopy__(self, memo: object) -> "Clock":
        return self  # RecTools copies its trainer, and the copy has to run the same clock


@dataclass
class Run:
    """One run of one peer: its clocks, the validation history, and the line of JSON at the end."""

    library: str
    args: argparse.Namespace
    split: Split
    train: Clock = field(default_factory=Clock)
    valid: Clock = field(default_factory=Clock)
    evaluation: Clock = field(default_factory=Clock)
    startup: float = 0.0
    targets: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best: object = None
    reached: float | None = None

    def started(self, targets: int | None = None) -> None:
        """Note the moment just before training, and the targets in one epoch where the library has its own count."""
        self.targets = self.split.targets(self.args.regime) if targets is None else targets
        self.startup = since_process_start()

    def validated(self, epoch: int, valid_ndcg: float, test_ndcg: float, state: Mapping[str, object]) -> bool:
        """Record one validation, keep ``state`` (of tensors) if it is the best so far; True says stop."""
        elapsed = self.train.wall + self.valid.wall
        better = all(valid_ndcg > entry["valid_ndcg10"] for entry in self.history)
        entry = {"epoch": epoch, "elapsed_seconds": elapsed, "train_seconds": self.train.wall}
        self.history.append(entry | {"valid_ndcg10": valid_ndcg, "test_ndcg10": test_ndcg})
        if better:
            self.best = {name: value.detach().clone() for name, value in state.items()}
        target, limit = self.args.target_ndcg, self.args.max_seconds
        if better and target is not None and test_ndcg >= target:
            self.reached = elapsed
        return self.reached is not None or (limit is not None and elapsed >= limit)

    def emit(self, ranking: Mapping[int, Sequence[int]], notes: str, epochs: int | None = None) -> None:
        """Write the line of JSON to the real standard output."""
        epochs = self.args.epochs if epochs is None else epochs
        result = {
            "library": self.library,
            "version": version(self.library),
            "regime": self.args.regime,
            "seed": self.args.seed,
            "epochs": epochs,
            "train_targets": self.targets,
            "train_seconds": self.train.wall,
            "train_cpu_seconds": self.train.cpu,
            "targets_per_second": self.targets * epochs / self.train.wall,
            "eval_seconds": self.evaluation.wall,
            **accuracy(ranking, self.split.test),
            "startup_seconds": self.startup,
            "notes": notes,
        }
        if self.args.to_accuracy:
            result |= {"target_ndcg10": self.args.target_ndcg, "reached_seconds": self.reached}
            result["history"] = self.history
        print(json.dumps(result), file=STDOUT, flush=True)
