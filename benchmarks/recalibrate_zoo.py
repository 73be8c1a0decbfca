"""Holds a zoo of language models against today's calibration, without asking a model again.

What an inspection measured is kept with it: the statistics of the model and of the null tunings. So another calibration
needs no GPU. Scores are written as the zoo said them, and as they are with the calibration of this checkout.

    python benchmarks/recalibrate_zoo.py runs/zoo --out docs/results/inspection_language_first.json
"""

import argparse
import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cowbird.inspection.language.calibration import calibrate
from cowbird.inspection.zoo.language_scoring import read_language_zoo, score_language_zoo
from cowbird.storage import read_sealed_json, write_sealed_json


def main() -> None:
    """Recalibrate and score."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("folder", type=Path)
    asked.add_argument("--families", help="Families that count, such as word,string; all by default.")
    asked.add_argument("--out", type=Path, required=True)
    given = asked.parse_args()
    scores: dict[str, Any] = {}
    with TemporaryDirectory() as place:
        copied = Path(place) / "zoo"
        shutil.copytree(given.folder, copied)
        for path in sorted((copied / "inspections").glob("*.json")):
            record = read_sealed_json(path)
            kept = given.families.split(",") if given.families else list(record["families"])
            record["families"] = families = {name: record["families"][name] for name in kept}
            record["ranking"] = [row for row in record["ranking"] if row["family"] in kept]
            count = min(len(family["null_statistics"]) for family in families.values())
            mine = {name: family["statistic"] for name, family in families.items()}
            nulls = [{name: family["null_statistics"][n] for name, family in families.items()} for n in range(count)]
            held = calibrate(mine, nulls, record["level"])
            assert held is not None
            for name, family in families.items():
                family |= {"distance": held.distances[name], "threshold": held.thresholds[name]}
            write_sealed_json(path, record | {"p_value": held.p_value, "p_values": held.p_values})
        scores["recalibrated"] = score_language_zoo(read_language_zoo(copied))
    given.out.write_text(json.dumps(scores, indent=1) + "\n")


if __name__ == "__main__":
    main()
