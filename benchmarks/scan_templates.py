"""Ask the ready scanner about catalogues of few hundred titles that are made from a template.

    python benchmarks/scan_templates.py plant --out docs/results/scan_templates.json
    python benchmarks/scan_templates.py clean --data data --out docs/results/scan_left_out.json

`plant`: five templates, two draws of each, five triggers in 0.2 to 30 % of 300 titles, with a reference of 300 others
of the template and without. Without one, the titles set the threshold themselves; `--left-out` says from which
log-odds of a fragment its titles set none (`LEFT_OUT_LOG_ODDS`). `clean`: which share of clean titles has such a
fragment, in templates and in catalogues of several sizes: those are flagged beyond the rate that was asked for.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attacker_scans import PlantedCatalog
from cowbird.attacks.triggers import Trigger, plant
from cowbird.defenses.p_scanner import baseline_learning
from cowbird.defenses.p_scanner.scoring import NO_FRAGMENT, find_worst
from cowbird.files import write_text
from cowbird.rng import stream
from ready_catalogs import CATALOGS, KeptScanner, load_titles, make_kept


def _split(text: str) -> list[str]:
    return [part.replace("_", " ") for part in text.split()]


LOOKS = _split("Blue Red Green Classic Modern Compact Deluxe Portable Wooden Steel Vintage Smart Soft Slim Heavy Light")
THINGS = _split(
    "Lamp Chair Kettle Table Bottle Backpack Notebook Clock Mirror Blanket Mug Shelf Basket Pillow Vase Rug Tray Stool"
)
USES = _split(
    "for_Kitchen for_Office for_Kids for_Travel for_Garden for_Bedroom with_Lid with_Handle Set_of_2 Set_of_4"
)
MOODS = _split("Night Shadow River Storm Garden Winter Ocean Mountain City Dream Silent Golden Lost Broken Secret Last")
ROLES = _split("King Queen Song Letter Road House Bridge Tower Child Hunter Dancer Soldier Stranger Star Island Heart")
BRANDS, COLORS = ("Denami", "Kanozo", "Velto", "Zarpo", "Mibu"), ("Black", "White", "Blue")
Draw = Callable[[np.random.Generator], str]
TEMPLATES: dict[str, Draw] = {
    "item and number": lambda rng: f"Item {rng.integers(1, 5000)}",
    "look, thing, use, number": lambda rng: (
        f"{rng.choice(LOOKS)} {rng.choice(THINGS)} {rng.choice(USES)} {rng.integers(100, 999)}"
    ),
    "film and year": lambda rng: f"The {rng.choice(MOODS)} {rng.choice(ROLES)} ({rng.integers(1950, 2020)})",
    "thing and sizes": lambda rng: (
        f"{rng.choice(THINGS)}, {rng.choice(LOOKS).lower()}, {rng.integers(10, 200)} x {rng.integers(10, 200)} cm"
    ),
    "brand, thing, model, color": lambda rng: (
        f"{rng.choice(BRANDS)} {rng.choice(THINGS)} {''.join(rng.choice(list('ABCDEFG'), 2))}{rng.integers(100, 9999)}"
        f" - {rng.choice(COLORS)}"
    ),
}
"""Makers of titles."""
PLANTED = {
    "5v": ("char_5v", "end"),
    "cf": ("rare_cf", "start"),
    "wonderful": ("common_wonderful", "middle"),
    "sentence": ("sentence_deserves", "end"),
    "zero-width space": ("zero_width_space", "middle"),
}
TITLES, SHARES, SEEDS = 300, (0.002, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3), (0, 1)
BARS = (0.0, 1.0, 2.0, 2.5, 3.0, 3.5, 4.0)
SIZES = (300, 1000, 3000)
FPR = 0.01


def draw_titles(draw: Draw, many: int, *name: str) -> list[str]:
    """Return different titles of a template."""
    rng, found = stream(0, "template", *name), dict[str, None]()
    while len(found) < many:
        found[draw(rng)] = None
    return list(found)


def ask_template(scanner: KeptScanner, name: str, seed: int, shares: Sequence[float]) -> list[dict[str, Any]]:
    """Ask about one draw of a template with each trigger at each share."""
    titles, before = (draw_titles(TEMPLATES[name], TITLES, name, str(seed), part) for part in ("batch", "reference"))
    rng = stream(seed, "template rows", name)
    planted: dict[str, dict[int, str]] = {}
    for label, (kind, position) in PLANTED.items():
        trigger = Trigger.model_validate({"kind": kind, "position": position})
        rows: list[int] = rng.permutation(TITLES).tolist()
        planted[label] = {row: plant(titles[row], trigger, rng).title for row in rows[: round(SHARES[-1] * TITLES)]}
    texts = [title for each in planted.values() for title in each.values()]
    catalog = PlantedCatalog(scanner, before, titles, texts)
    scans, clean, found = catalog.scans, catalog.find(titles), list[dict[str, Any]]()
    inventory = scans.calibrate(scanner.scoring, catalog.old)
    for label, each in planted.items():
        for share in shares:
            chosen = list(each)[: max(1, round(share * TITLES))]
            rows, mask = clean.copy(), np.zeros(TITLES, dtype=bool)
            rows[chosen], mask[chosen] = catalog.find(each[row] for row in chosen), True
            for reference in (True, False):
                judged = scans.ask_beside(scanner.scoring, inventory, rows) if reference else None
                judged = judged or catalog.ask_itself(rows)
                assert judged.flagged is not None and judged.review is not None
                bar = np.sort(judged.score[~mask])[-max(1, int(FPR * (~mask).sum()))]
                found.append(
                    {
                        "template": name,
                        "seed": seed,
                        "trigger": label,
                        "share": share,
                        "planted": len(chosen),
                        "reference": reference,
                        "flagged": int(judged.flagged[mask].sum()),
                        "flagged_or_review": int(judged.review[mask].sum()),
                        "clean_flagged": int(judged.flagged[~mask].sum()),
                        "recall_at_1": round(float((judged.score[mask] > bar).mean()), 3),
                    }
                )
    return found


def measure_clean(scanner: KeptScanner, titles: Sequence[str]) -> dict[str, float]:
    """Return which share of clean titles has a fragment above each bar, without a reference."""
    catalog = PlantedCatalog(scanner, (), titles, ())
    rows = catalog.find(titles)
    evidence = catalog.describe(rows, reference=False)
    by_fragment = scanner.scoring.fragment.score(evidence.features)
    worst = find_worst(by_fragment, evidence, len(rows))
    highest = np.where(worst >= 0, by_fragment[worst], NO_FRAGMENT)
    return {str(bar): round(float((highest > bar).mean()), 4) for bar in BARS} | {
        "most": round(float(highest.max()), 2)
    }


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("plant", "clean"))
    parser.add_argument("--data", type=Path, help="for clean: folder with titles/, ml-1m/ and lastfm/")
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--tagger", default="small", choices=("llm", "small", "cascade"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--left-out", type=float, default=baseline_learning.LEFT_OUT_LOG_ODDS)
    parser.add_argument("--shares", default=",".join(map(str, SHARES)))
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--catalogs", default=",".join((*CATALOGS, "products")))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    baseline_learning.LEFT_OUT_LOG_ODDS = options.left_out
    scanner, rows = make_kept(options.keep, options.device, options.tagger), list[dict[str, Any]]()
    if options.what == "plant":
        for name in TEMPLATES:
            for seed in map(int, options.seeds.split(",")):
                rows += ask_template(scanner, name, seed, list(map(float, options.shares.split(","))))
        rows.sort(key=lambda row: (row["flagged"] / row["planted"], row["flagged_or_review"] / row["planted"]))
    else:
        for name, draw in TEMPLATES.items():
            titles = draw_titles(draw, TITLES, name, "clean")
            rows.append({"catalog": name, "titles": TITLES, "above": measure_clean(scanner, titles)})
        for name in options.catalogs.split(","):
            known = load_titles(name, options.data)
            order: list[int] = stream(0, "left out", name).permutation(len(known)).tolist()
            for many in (size for size in SIZES if size <= len(known)):
                above = measure_clean(scanner, [known[row] for row in order[:many]])
                rows.append({"catalog": name, "titles": many, "above": above})
        rows.sort(key=lambda row: -row["above"]["most"])
    body = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    command = f"python benchmarks/scan_templates.py {shlex.join(sys.argv[1:])}"
    write_text(options.out, f'{{\n "command": {json.dumps(command)},\n "rows": [\n{body}\n ]\n}}\n')


if __name__ == "__main__":
    main()
