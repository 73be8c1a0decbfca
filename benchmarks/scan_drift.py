"""Count clean titles that are flagged beside a reference of another part of their catalogue: honest drift, no trigger.

    python benchmarks/scan_drift.py --data shared --out docs/results/scan_drift.json

A catalogue changes by itself: films get newer, a shop enters another country, a seller likes capitals. The reference is
of one part and the batch of another, and a scan asks for 1 % of false positives. Each row also has halves of the same
titles drawn at random, and both with shapes that jumped counted (`shape_drift`) and not.
"""

import argparse
import json
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from cowbird.defenses.p_scanner.ready import ReadyScanner
from cowbird.defenses.p_scanner.shape_drift import count_shapes, measure_spread
from cowbird.defenses.p_scanner.title_traits import describe_traits, mark_words
from cowbird.files import write_text
from cowbird.rng import stream
from ready_catalogs import load_products, load_titles

MOST = 1500
"""Titles of a reference and of a batch."""
YEAR = re.compile(r"\((\d{4})\)$")


class Change(NamedTuple):
    """Two parts of a catalogue."""

    name: str
    before: list[str]
    after: list[str]


def list_changes(data: Path, seed: int) -> Iterator[Change]:
    """Yield parts of catalogues that differ for an honest reason.

    Args:
        data: Folder with `titles/`, `ml-1m/` and `lastfm/`.
        seed: Draws the titles of each part.
    """
    rng = stream(seed, "drift")

    def draw(titles: Sequence[str], many: int = MOST) -> list[str]:
        return [titles[row] for row in rng.permutation(len(titles))[:many].tolist()]

    films = load_titles("movielens_1m", data)
    years = [int(found.group(1)) if (found := YEAR.search(title)) else 0 for title in films]
    films = [YEAR.sub("", title).strip() for title in films]
    yield _cut("films before 1990, then later ones", films, [year >= 1990 for year in years], draw)
    for name, file in (("anime", "anime.csv"), ("office products", "office_products.csv")):
        frame = pl.read_csv(data / "titles" / file).drop_nulls().unique("title").sort("id")
        titles = [title for title in frame["title"].to_list() if title.strip()]
        yield _cut(f"{name} by id", titles, [2 * row >= len(titles) for row in range(len(titles))], draw)
    artists = load_titles("lastfm", data)
    yield _cut("artists by id", artists, [2 * row >= len(artists) for row in range(len(artists))], draw)
    for other in ("de", "ja"):
        english, foreign = draw(load_products("en"), 2 * MOST), draw(load_products(other), 2 * MOST)
        english, half = draw(english, len(english)), len(english) // 2
        few, many = len(english) // 20, len(english) // 5
        before, after = (
            english[: half - few] + foreign[:few],
            english[half : 2 * half - many] + foreign[few : few + many],
        )
        yield Change(f"products, 10 % {other}, then 40 %", before, after)
        yield Change(f"products, no {other}, then 5 %", english[:half], english[half:] + foreign[: half // 20])
    half = len(artists) // 2
    artists = draw(artists, len(artists))
    few = min(half, MOST) // 10
    before, after = artists[: min(half, MOST)], artists[half : half + min(half, MOST)]
    yield Change("artists, then 10 % in capitals", before, [title.upper() for title in after[:few]] + after[few:])
    yield Change("artists, then all in capitals", before, [title.upper() for title in after])


def _cut(name: str, titles: Sequence[str], later: Sequence[bool], draw: Any) -> Change:
    first = [title for title, late in zip(titles, later, strict=True) if not late]
    second = [title for title, late in zip(titles, later, strict=True) if late]
    return Change(name, draw(first), draw(second))


def measure(scanner: ReadyScanner, before: Sequence[str], after: Sequence[str]) -> dict[str, Any]:
    """Return what share of clean titles is flagged, with shapes that jumped and without."""
    known = set(before)
    after = [title for title in dict.fromkeys(after) if title not in known]
    marks = scanner.read([*before, *after])
    own = scanner.read(after)
    told: dict[str, Any] = {"reference": len(before), "titles": len(after)}
    for way in ("shapes", "without"):
        asked = replace(scanner, scoring=replace(scanner.scoring, weighs_shapes=way == "shapes"))
        baseline = asked.learn_baseline(after, before, marks=marks)
        found = asked.judge(after, baseline, own)
        told[way] = round(float(found.flagged.mean()), 4)
        if way == "shapes":
            told["jumps"] = len(baseline.drift.jumps)
    traits = describe_traits(mark_words([*before, *after], marks))
    old, new = np.arange(len(before)), np.arange(len(before), len(before) + len(after))
    counts = [count_shapes(traits.shapes, rows) for rows in (new, old)]
    told["spread"] = round(measure_spread(counts[0], len(after), counts[1], len(before)), 2)
    return told


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    scanner, rows = ReadyScanner.load("cpu", "small"), list[dict[str, Any]]()
    for seed in map(int, options.seeds.split(",")):
        for change in list_changes(options.data, seed):
            titles = list(dict.fromkeys([*change.before, *change.after]))
            order: list[int] = stream(seed, "mixed", change.name).permutation(len(titles)).tolist()
            mixed = [titles[row] for row in order]
            half = len(mixed) // 2
            parts = {"apart": (change.before, change.after), "mixed": (mixed[:half], mixed[half:])}
            for way, (before, after) in parts.items():
                rows.append({"change": change.name, "halves": way, "seed": seed} | measure(scanner, before, after))
                print(json.dumps(rows[-1]), flush=True)
    rows.sort(key=lambda row: row["without"] - row["shapes"])
    body = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    command = f"python benchmarks/scan_drift.py {shlex.join(sys.argv[1:])}"
    write_text(options.out, f'{{\n "command": {json.dumps(command)},\n "rows": [\n{body}\n ]\n}}\n')


if __name__ == "__main__":
    main()
