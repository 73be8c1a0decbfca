"""Attacks the command line from outside, and counts what went wrong: exit codes, files, secrets, rows, orphans, memory.

    python benchmarks/attack_product.py --out docs/results/attack_product.csv

All of it happens in a new folder, with a home and a cache of its own. It needs Linux; the part with full disks needs to
be root and is left out otherwise. It takes some 20 minutes on two idle cores. `--only KIND` tries one kind.
"""

import argparse
import csv
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from attacking.bombs import attack_memory, attack_references, attack_sheets
from attacking.harness import Attempt, Place
from attacking.kills import attack_closed_pipes, attack_full_disk, attack_kills, attack_two_writers
from attacking.models import attack_models
from attacking.pipes import attack_paths
from attacking.specs import attack_specs

ATTACKS = {
    "specs": attack_specs,
    "paths": attack_paths,
    "pipes": attack_closed_pipes,
    "bombs": attack_memory,
    "reference": attack_references,
    "sheets": attack_sheets,
    "models": attack_models,
    "kills": attack_kills,
    "writers": attack_two_writers,
    "disk": attack_full_disk,
}
COLUMNS = (
    "kind",
    "attack",
    "expected",
    "exit",
    "wrong_exit",
    "secrets",
    "touched",
    "lost",
    "orphans",
    "peak_mb",
    "faults",
)


def make_row(attempt: Attempt) -> tuple[object, ...]:
    """Return a row of the table."""
    code = attempt.outcome.code
    return (
        attempt.kind, attempt.name.encode("ascii", "backslashreplace").decode(), " ".join(map(str, attempt.codes)),
        "hung" if code is None else code, int(code not in attempt.codes), attempt.secrets, len(attempt.touched),
        attempt.lost, attempt.orphans, round(attempt.outcome.peak_mb), "; ".join(attempt.faults),
    )  # fmt: skip


def print_counts(attempts: list[Attempt]) -> None:
    """Print the counts of each kind, and of all."""
    heads = ("attacks", "exit", "secrets", "touched", "lost", "orphans", "peak MB", "faults")
    print(f"\n{'kind':10}" + "".join(f"{head:>9}" for head in heads))
    for kind in [*dict.fromkeys(attempt.kind for attempt in attempts), "all"]:
        some = [attempt for attempt in attempts if kind in (attempt.kind, "all")]
        rows = [make_row(attempt) for attempt in some]
        sums = [sum(int(str(row[at])) for row in rows) for at in (4, 5, 6, 7, 8)]
        peak, faults = max(int(str(row[9])) for row in rows), sum(bool(attempt.faults) for attempt in some)
        print(f"{kind:10}" + "".join(f"{number:9}" for number in (len(some), *sums, peak, faults)))


def main() -> int:
    """Try the attacks; the exit code is 1 if one of them did harm."""
    parser = argparse.ArgumentParser(description="Attack the command line from outside.")
    parser.add_argument("--only", action="append", choices=ATTACKS, help="one kind; repeat for more")
    parser.add_argument("--out", type=Path, help="a CSV file of all attacks")
    parser.add_argument("--folder", type=Path, help="where to work; a new folder by default, which goes at the end")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="cowbird-attack-"))
    attempts: list[Attempt] = []
    for kind in given.only or ATTACKS:
        place = Place(folder / kind)
        try:
            ATTACKS[kind](place)
        finally:
            attempts += place.attempts
            if given.out is not None:  # now, for there is more to come
                with given.out.open("w", newline="", encoding="utf-8") as file:
                    csv.writer(file).writerows([COLUMNS, *map(make_row, attempts)])
    print_counts(attempts)
    if given.folder is None:
        shutil.rmtree(folder, ignore_errors=True)
    return int(any(attempt.faults for attempt in attempts))


if __name__ == "__main__":
    raise SystemExit(main())
