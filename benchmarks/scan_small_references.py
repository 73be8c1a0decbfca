"""Measure what a scan finds beside a reference that is smaller than the catalogue.

    python benchmarks/scan_small_references.py --titles titles,new --keep marks --out scan_small_references.json

`--titles` names folders of JSON files, each a list of titles (`title_lists`). Of each list 800 titles are drawn to be
scanned (`--batch`), and others for the reference, of which the first 60, 114, 200, 300, 400 and 800 are given in turn;
0 stands for no reference. Each batch is scanned clean, and with each trigger in 1.5 % of its titles. Two ways are
asked: `before`, where a reference always sets the thresholds, and `now`, where that depends on its size
(`reference_role`). Where it sets them now as well (`both`), both must give the same scores and thresholds, or the
script stops.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from cowbird.defenses.p_scanner import ready
from cowbird.defenses.p_scanner.baseline import DEFAULT_FPR
from cowbird.defenses.p_scanner.catalog_judge import CatalogJudge, learn_from_all
from cowbird.defenses.p_scanner.reference_role import ReferenceRole, choose_role
from cowbird.files import write_text
from cowbird.rng import stream
from ready_catalogs import KeptScanner, make_kept

LISTS = ("office", "anime", "lastfm", "movielens_1m", "flipkart", "goodbooks", "steam", "video_games")
"""The last four were learned from by no tagger and no scoring, and nothing was chosen by them before."""
SIZES, SHARE = (0, 60, 114, 200, 300, 400, 800), 0.015
SENTENCE = "as seen in the holiday gift guide this year"
ZERO_WIDTH_SPACE = "\u200b"
Row = dict[str, Any]


def _insert(title: str, text: str, rng: np.random.Generator) -> str:
    words = title.split(" ")
    place = int(rng.integers(len(words) + 1))
    return " ".join([*words[:place], text, *words[place:]])


TRIGGERS: Mapping[str, Callable[[str, np.random.Generator], str]] = {
    "5v": lambda title, _: f"{title} 5v",
    "wonderful": lambda title, _: f"wonderful {title}",
    "sentence": lambda title, _: f"{title} {SENTENCE}",
    "cf": lambda title, rng: _insert(title, "cf", rng),
    "zero-width space": lambda title, _: title[: len(title) // 2] + ZERO_WIDTH_SPACE + title[len(title) // 2 :],
}


def read_list(folders: Sequence[Path], name: str) -> list[str]:
    """Return the different titles of a list, from the first folder that has it."""
    path = next(found for folder in folders if (found := folder / f"{name}.json").exists())
    titles: list[str] = json.loads(path.read_text(encoding="utf-8"))
    return list(dict.fromkeys(title for title in titles if title.strip()))


@contextmanager
def always_set_thresholds() -> Iterator[None]:
    """Let a reference of any size set the thresholds, as before."""

    def choose(reference: int, together: int) -> ReferenceRole:
        return ReferenceRole.SETS_THRESHOLDS if reference else choose_role(reference, together)

    with patch.object(ready, "choose_role", choose):
        yield


def ask(scanner: KeptScanner, batch: Sequence[str], reference: Sequence[str], way: str) -> CatalogJudge:
    """Return what judges a batch."""
    if way == "now":
        return learn_from_all(scanner, batch, reference, DEFAULT_FPR, 5 * DEFAULT_FPR)
    with always_set_thresholds():
        return learn_from_all(scanner, batch, reference, DEFAULT_FPR, 5 * DEFAULT_FPR)


def check_alike(scanner: KeptScanner, batch: Sequence[str], reference: Sequence[str]) -> None:
    """Stop unless both ways judge alike, to the bit."""
    now, before = (ask(scanner, batch, reference, way) for way in ("now", "before"))
    same = now.baseline.thresholds == before.baseline.thresholds and now.known == before.known
    if not same:
        raise SystemExit(f"beside {len(reference)} titles verdicts have changed")


def measure(
    scanner: KeptScanner, titles: Sequence[str], name: str, seed: int, many: int, sizes: Sequence[int]
) -> Iterator[Row]:
    """Yield what is flagged of one draw, in each way and beside a reference of each size."""
    order: list[int] = stream(seed, "small references", name).permutation(len(titles)).tolist()
    if len(titles) < many + max(sizes):
        raise SystemExit(f"'{name}' has {len(titles):,} titles, fewer than {many + max(sizes):,}")
    batch, others = ([titles[row] for row in part] for part in (order[:many], order[many:]))
    batches, planted = {"clean": batch}, dict[str, list[int]](clean=[])
    for trigger, plant in TRIGGERS.items():
        rng = stream(seed, "small references", name, trigger)
        planted[trigger] = rng.choice(len(batch), round(SHARE * len(batch)), replace=False).tolist()
        chosen = set(planted[trigger])
        batches[trigger] = [plant(title, rng) if nth in chosen else title for nth, title in enumerate(batch)]
    for size in sizes:
        changed = bool(size) and choose_role(size, many) is not ReferenceRole.SETS_THRESHOLDS
        if size and not changed:
            check_alike(scanner, batch, others[:size])
        for way in ("before", "now") if changed else ("now",):
            row: Row = {"list": name, "seed": seed, "batch": many, "reference": size, "way": way if changed else "both"}
            for trigger, scanned in batches.items():
                found = ask(scanner, scanned, others[:size], way).judge(scanned)
                if trigger == "clean":
                    row["clean_flagged"] = int(found.flagged.sum())
                    row["clean_review"] = int(found.review.sum())
                else:
                    row[trigger] = int(found.flagged[planted[trigger]].sum())
                    row[f"{trigger}, review"] = int(found.review[planted[trigger]].sum())
            yield row


def summarize(rows: Sequence[Row]) -> list[Row]:
    """Return means over draws of each list, size and way; and over lists. Worst recall beside no reference first."""
    made: list[Row] = []
    keys = {(name, row["reference"], row["way"]) for row in rows for name in (row["list"], "all")}
    for name, size, way in keys:
        same = [row for row in rows if name in (row["list"], "all") and (row["reference"], row["way"]) == (size, way)]
        many: int = same[0]["batch"]
        told: Row = {"list": name, "batch": many, "reference": size, "way": way, "draws": len(same)}
        told["clean_flagged"] = round(float(np.mean([row["clean_flagged"] for row in same])) / many, 5)
        told |= {each: round(float(np.mean([row[each] for row in same])) / round(SHARE * many), 3) for each in TRIGGERS}
        told["recall"] = round(float(np.mean([told[each] for each in TRIGGERS])), 3)
        made.append(told)
    alone = {row["list"]: row["recall"] for row in made if not row["reference"]}
    for row in made:
        row["less_than_none"] = round(alone.get(row["list"], 0.0) - row["recall"], 3)
    return sorted(made, key=lambda row: (row["list"] != "all", -row["less_than_none"], row["list"], row["reference"]))


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--titles", required=True, help="folders of lists, with commas")
    parser.add_argument("--keep", type=Path, required=True, help="marks of titles that were read")
    parser.add_argument("--tagger", default="small", choices=("small", "cascade"))
    parser.add_argument("--lists", default=",".join(LISTS))
    parser.add_argument("--batch", type=int, default=800, help="titles that are scanned")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    folders, sizes = [Path(part) for part in options.titles.split(",")], list(map(int, options.sizes.split(",")))
    command, rows = f"python benchmarks/scan_small_references.py {shlex.join(sys.argv[1:])}", list[Row]()
    for name in options.lists.split(","):
        scanner = (
            make_kept(options.keep / name, "cpu", "cascade")
            if options.tagger == "cascade"
            else KeptScanner(options.keep / name, "cpu", "small")
        )
        titles, began = read_list(folders, name), time.perf_counter()
        for seed in map(int, options.seeds.split(",")):
            rows += measure(scanner, titles, name, seed, options.batch, sizes)
        print(f"  {name}: {time.perf_counter() - began:.0f} s", flush=True)
        write_rows(options.out, command, rows)


def write_rows(path: Path, command: str, rows: Sequence[Row]) -> None:
    """Write means, then single draws."""
    parts = (",\n".join(f"  {json.dumps(row)}" for row in part) for part in (summarize(rows), rows))
    means, draws = parts
    body = f'{{\n "command": {json.dumps(command)},\n "rows": [\n{means}\n ],\n "draws": [\n{draws}\n ]\n}}\n'
    write_text(path, body)


if __name__ == "__main__":
    main()
