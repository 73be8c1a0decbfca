"""Compare the ready scanner's recall behind taggers that were trained with different seeds.

    python benchmarks/scan_seeds.py answers/seed1 answers/seed2 --out docs/results/scan_seeds.json

Each folder holds what `scan_asking.py ask` wrote with the marks of one training: the same catalogues, draws, triggers
and scoring. Of each row the mean of each seed over draws is told, and their difference; of each catalogue the standard
deviation between seeds, pooled over its rows, and the half of an interval (95 %) of one seed's figure that follows from
so few seeds (Student's t).
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from cowbird.files import write_text

Row = dict[str, Any]


def read_means(folder: Path) -> dict[tuple[Any, ...], dict[int, float]]:
    """Return the mean recall over families of each catalogue, share, reference and kind, by draw."""
    groups: dict[tuple[Any, ...], dict[int, list[float]]] = {}
    for path in sorted(folder.rglob("*.json")):
        told = json.loads(path.read_text(encoding="utf-8"))
        for row in (*told["single"], *told["shares"]):
            key = (told["catalog"], row["share"], row.get("known", True), row["kind"])
            groups.setdefault(key, {}).setdefault(told["draw"], []).append(row["recall"])
    return {key: {draw: float(np.mean(found)) for draw, found in drawn.items()} for key, drawn in groups.items()}


def compare(answers: Sequence[Path]) -> tuple[list[Row], list[Row]]:
    """Return rows, the largest difference first, and of each catalogue how far apart seeds are."""
    means = [read_means(folder) for folder in answers]
    shared = sorted(set.intersection(*(set(each) for each in means)), key=str)
    rows: list[Row] = []
    for key in shared:
        draws = sorted(set.intersection(*(set(each[key]) for each in means)))
        each = [float(np.mean([found[key][draw] for draw in draws])) for found in means]
        row = dict(zip(("catalog", "share", "reference", "triggers"), key, strict=True)) | {"draws": draws}
        rows.append(
            row | {"recall_by_seed": [round(one, 4) for one in each], "difference": round(each[-1] - each[0], 4)}
        )
    rows.sort(key=lambda row: row["difference"])
    spread: list[Row] = []
    catalogs = sorted({row["catalog"] for row in rows})
    for kind in sorted({row["triggers"] for row in rows}):
        for chosen in ([name] for name in catalogs):
            spread.append({"catalog": chosen[0], "triggers": kind} | _measure_spread(rows, kind, chosen))
        spread.append({"catalog": "all", "triggers": kind} | _measure_spread(rows, kind, catalogs))
    spread.sort(key=lambda row: -row["deviation"])
    return rows, spread


def _measure_spread(rows: Sequence[Row], kind: str, catalogs: Sequence[str]) -> Row:
    """Return how far apart seeds are, and the half of an interval that follows.

    Rows of one training move together, so a catalogue counts as one look at each seed.
    """
    same = [row["recall_by_seed"] for row in rows if row["triggers"] == kind and row["catalog"] in catalogs]
    values = np.array(same)
    deviation, free = float(np.sqrt(values.var(axis=1, ddof=1).mean())), len(catalogs) * (values.shape[1] - 1)
    return {
        "rows": len(values),
        "deviation": round(deviation, 4),
        "mean_difference": round(float((values[:, -1] - values[:, 0]).mean()), 4),
        "half_interval_of_one_seed": round(float(stats.t.ppf(0.975, free) * deviation), 4),
    }


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("answers", type=Path, nargs="+", help="a folder of answers of each seed")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows, spread = compare(options.answers)
    parts = {"spread": spread, "rows": rows}
    body = [f' "command": {json.dumps(f"python benchmarks/scan_seeds.py {shlex.join(sys.argv[1:])}")}']
    body += [
        f" {json.dumps(name)}: [\n" + ",\n".join(f"  {json.dumps(row)}" for row in part) + "\n ]"
        for name, part in parts.items()
    ]
    write_text(options.out, "{\n" + ",\n".join(body) + "\n}\n")
    for row in (*spread, *rows):
        print(json.dumps(row))


if __name__ == "__main__":
    main()
