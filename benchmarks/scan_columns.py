"""Ask the ready scanner about a shop's real titles, with and without its columns of brands, categories and sellers.

    python benchmarks/scan_columns.py shop.csv --seeds 0 --triggers none,5v --out answers/0-first.json
    python benchmarks/scan_columns.py answers/*.json --join --out docs/results/scan_columns.json

`shop.csv` has columns `title`, `brand` and `category`. Half of its titles, drawn anew for each seed, are the batch; the
others are the reference, where there is one. The file has no sellers, so three kinds are made up:

- `mixed`: 60 sellers, as large as Zipf's law says, who sell titles of all brands;
- `own shops`: each brand of five titles or more is sold by one seller alone. This is the control: to the scanner such
  a brand looks like a fragment that one seller planted;
- none.

One seller floods: all titles with the trigger are hers, and she has no others. Each row tells the recall and the clean
titles flagged, at the scanner's own threshold for 1 %, and the recall at the threshold that 1 % of the clean titles of
the same batch pass.
"""

import argparse
import json
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from cowbird.attacks.triggers import Trigger, plant
from cowbird.defenses.p_scanner.catalog_judge import CatalogJudge
from cowbird.defenses.p_scanner.column_evidence import read_title_columns
from cowbird.defenses.p_scanner.ready import ReadyScanner
from cowbird.files import write_text
from cowbird.rng import stream

PLANTED = {
    "none": None,
    "5v": ("char_5v", "end"),
    "cf": ("rare_cf", "start"),
    "wonderful": ("common_wonderful", "middle"),
    "sentence": ("sentence_deserves", "end"),
    "box set": ("edition_box_set", "end"),
}
SHARES = (0.01, 0.05, 0.2)
SELLERS, MIN_OWN_SHOP, FPR = 60, 5, 0.01
FLOODER = "flooder"
COLUMNS: dict[str, tuple[tuple[str, ...], str | None]] = {
    "no columns": ((), None),
    "brand, category": (("brand", "category"), None),
    "brand, category, mixed sellers": (("brand", "category"), "mixed"),
    "brand, category, own shops": (("brand", "category"), "own shops"),
}


def add_sellers(shop: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Return the shop with made-up sellers of both kinds."""
    rng = stream(seed, "sellers")
    share = 1 / np.arange(1, SELLERS + 1)
    drawn = rng.choice(SELLERS, size=len(shop), p=share / share.sum())
    mixed = [f"seller {number}" for number in drawn.tolist()]
    brands: list[str] = [brand or "" for brand in shop["brand"].to_list()]
    counts = Counter(brands)
    own = [
        f"shop of {brand}" if brand and counts[brand] >= MIN_OWN_SHOP else seller
        for brand, seller in zip(brands, mixed, strict=True)
    ]
    return shop.with_columns(pl.Series("mixed", mixed), pl.Series("own shops", own))


def plant_flood(batch: pl.DataFrame, name: str, share: float, seed: int) -> tuple[pl.DataFrame, list[bool]]:
    """Plant a trigger in titles of one seller, and say which."""
    place = PLANTED[name]
    many = 0 if place is None else max(1, round(share * len(batch)))
    rng = stream(seed, "flood", name)
    titles: list[str] = batch["title"].to_list()
    mask = [False] * len(titles)
    for row in rng.permutation(len(titles)).tolist():
        if many == 0 or place is None:
            break
        planted = plant(titles[row], Trigger.model_validate({"kind": place[0], "position": place[1]}), rng)
        if planted.title in titles:
            continue
        titles[row], mask[row], many = planted.title, True, many - 1
    flooder = pl.Series(mask)
    sellers = [
        pl.when(flooder).then(pl.lit(FLOODER)).otherwise(pl.col(name)).alias(name) for name in ("mixed", "own shops")
    ]
    return batch.with_columns(pl.Series("title", titles), *sellers), mask


def ask(
    scanner: ReadyScanner, shop: pl.DataFrame, seed: int, triggers: Sequence[str], known: Sequence[str]
) -> list[dict[str, Any]]:
    """Ask about one draw of the batch, with each of the triggers, shares and sets of columns."""
    shop = add_sellers(shop, seed)
    order: list[int] = stream(seed, "halves").permutation(len(shop)).tolist()
    half = len(shop) // 2
    batch, before = shop[order[:half]], shop[order[half:]]["title"].to_list()
    found: list[dict[str, Any]] = []
    for name in triggers:
        for share in SHARES if PLANTED[name] else (0.0,):
            flooded, told = plant_flood(batch, name, share, seed)
            mask = np.array(told)
            for label in known:
                explain, seller = COLUMNS[label]
                columns = read_title_columns(flooded, "title", explain, seller) if explain else None
                for reference in (before, []):
                    titles = flooded["title"].to_list()
                    judge = CatalogJudge.learn(scanner, titles, reference, FPR, 3 * FPR, columns=columns)
                    judged = judge.judge(titles)
                    row: dict[str, Any] = {"seed": seed, "trigger": name, "share": share, "columns": label}
                    row |= {"reference": bool(reference), "titles": len(titles), "planted": int(mask.sum())}
                    row["clean_flagged"] = int(judged.flagged[~mask].sum())
                    if mask.any():
                        bar = np.sort(judged.score[~mask])[-max(1, int(FPR * (~mask).sum()))]
                        row["recall"] = round(float(judged.flagged[mask].mean()), 4)
                        row["recall_at_1pct"] = round(float((judged.score[mask] > bar).mean()), 4)
                    found.append(row)
                    print(json.dumps(row), flush=True)
    return found


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="the shop; with --join, what was written before")
    parser.add_argument("--join", action="store_true")
    parser.add_argument("--triggers", default=",".join(PLANTED))
    parser.add_argument("--columns", default=";".join(COLUMNS), help="sets of columns, with semicolons")
    parser.add_argument("--most", type=int, default=4000, help="titles of the shop that are drawn")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--tagger", default="small", choices=("small", "llm"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    command = f"python benchmarks/scan_columns.py {shlex.join(sys.argv[1:])}"
    if options.join:
        parts = [json.loads(path.read_text(encoding="utf-8")) for path in options.files]
        commands = sorted({line for part in parts for line in part["commands"]})
        found = sorted((row for part in parts for row in part["asked"]), key=lambda row: (row["seed"], row["trigger"]))
        many = parts[0]["titles"]
    else:
        shop = pl.read_csv(options.files[0], infer_schema_length=0).unique("title", keep="first", maintain_order=True)
        rows = np.sort(stream(0, "shop").permutation(len(shop))[: options.most])
        shop, commands, found = shop[rows.tolist()], [command], list[dict[str, Any]]()
        scanner, many = ReadyScanner.load("cpu", options.tagger), len(shop)
        for seed in options.seeds.split(","):
            found += ask(scanner, shop, int(seed), options.triggers.split(","), options.columns.split(";"))
    head = {"commands": commands, "titles": many}
    lines = ",\n".join(json.dumps(row) for row in found)
    write_text(options.out, json.dumps(head, indent=1)[:-2] + ',\n "asked": [\n' + lines + "\n ]\n}\n")


if __name__ == "__main__":
    main()
