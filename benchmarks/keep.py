"""Keep the rows of a run that a table needs, as a small CSV for `docs/results/`.

    python benchmarks/keep.py runs/basic_replacement/results.jsonl docs/results/basic_replacement_ml1m.csv

Kept: NDCG and its change, exposure HR of attacked and clean model, lift and selectivity, at one cut-off, for all seeds
together, over seeds, and (lift alone) for each seed; of a run that has no rows for all seeds together, those of each
seed. Numbers are rounded to six digits.
"""

import argparse
from pathlib import Path

from cowbird.experiments import results
from cowbird.files import write_text

POOLED = ("ndcg", "ndcg_change", "exposure_hr", "exposure_hr_clean", "lift_hr", "selectivity_hr")
NO_K = results.NO_K
SUFFIXES = ("", "_lower_bound", "_over_seeds")


def rounded(row: results.Row) -> results.Row:
    """Return a row with six significant digits."""
    numbers = {name: getattr(row, name) for name in ("value", "low", "high")}
    return row.model_copy(update={name: n if n is None else float(f"{n:.6g}") for name, n in numbers.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--k", type=int, default=10)
    arguments = parser.parse_args()
    pooled = {name + suffix for name in POOLED for suffix in SUFFIXES}
    single = {"lift_hr", "lift_hr_lower_bound"}
    rows = results.read_results(arguments.results)
    if all(row.seed is not None for row in rows):
        single = pooled
    kept = [
        rounded(row)
        for row in rows
        if row.k == NO_K or (row.k == arguments.k and row.metric in (pooled if row.seed is None else single))
    ]
    write_text(arguments.out, results.to_csv(kept))
    print(f"{len(kept)} rows in {arguments.out}")


if __name__ == "__main__":
    main()
