"""Ask the ready scanner with what a plain language model says of slips, and without.

    python benchmarks/scan_asking.py ask --titles titles --marks marks --scoring scoring --catalogs office --out before
    python benchmarks/scan_slips.py ask --titles titles --marks marks --scoring scoring --catalogs office --out after
    python benchmarks/scan_slips.py table --before before --after after --out docs/results/scan_slips.json

`marks` and `scoring` are those of `scan_asking.py`, whose questions these are: titles, tagger, scoring and draws are
the same in both rows of a pair. Slips are read as the package reads them (`title_slips.SlipReader`). `table` joins
pairs: of each family and of each kind the mean over catalogues and draws, the mean difference with its interval, and
the worst pair.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from cowbird.defenses.p_scanner.spelling import Slip
from cowbird.defenses.p_scanner.title_slips import SlipReader, find_corrections
from cowbird.files import write_text
from cowbird.victims.fit_context import find_fast_dtype, pick_device
from cowbird.victims.language.llm import Llm, load_reader
from scan_asking import AskedCatalog, add_scoring_options, choose_units, load_known
from scan_scoring import add_mark_options, load_catalog

Row = dict[str, Any]
SHARES = "0.002,0.01,0.05,0.2"
SETTINGS = (
    "OPEN_TO_SLIPS",
    "LEAST_GAIN",
    "MAX_GAIN",
    "GAIN_WEIGHT",
    "SELDOM_GAIN",
    "RARE_GAIN",
    "SELDOM_ALONE",
    "RARE_ALONE",
)


class CountingReader(SlipReader):
    """A reader that says how many titles it was asked about, and how long that took."""

    titles, lines, seconds = 0, 0, 0.0

    def find(self, titles: Sequence[str]) -> list[tuple[Slip, ...]]:
        """Return the slips of titles; see `SlipReader.find`."""
        began, known = time.perf_counter(), len(self._known)
        new = [title for title in dict.fromkeys(titles) if title not in self._known]
        found = super().find(titles)
        self.titles += len(self._known) - known
        self.lines += sum(1 + len(each) for title in new if (each := find_corrections(title)))
        self.seconds += time.perf_counter() - began
        return found


def ask(options: argparse.Namespace, command: str) -> None:
    """Ask about catalogues."""
    options.out.mkdir(parents=True, exist_ok=True)
    device = pick_device(options.device)
    for name in options.catalogs.split(","):
        began = time.perf_counter()
        reader = CountingReader(partial(load_reader, Llm(), device, find_fast_dtype(device)), device)
        catalog = load_catalog(name, options.titles, options.marks, options.words, options.draw)
        model, learned = load_known(options, name)
        units = choose_units(catalog.plantings, 1)
        if options.families:
            chosen = options.families.split(",")
            units = [unit for unit in units if unit.family in chosen]
            catalog.plantings.single = [unit for unit in catalog.plantings.single if unit.family in chosen]
        asked = AskedCatalog(catalog, replace(catalog.scans, slips=reader), model)
        calibrating = {"titles": reader.titles, "lines": reader.lines, "seconds": round(reader.seconds, 2)}
        single, fresh = asked.ask_single()
        answer: Row = {"catalog": name, "draw": options.draw, "command": command, "single": single}
        answer |= {"fresh_clean_flagged": fresh, "shares": [], "settings": list_settings()}
        answer |= {"scoring_learned_from": learned}
        for share in map(float, options.shares.split(",")):
            answer["shares"] += asked.ask_shares(units, (share,))
            told = {"titles": reader.titles, "lines": reader.lines, "seconds": round(reader.seconds, 2)}
            answer["asked_to_calibrate"], answer["asked"] = calibrating, told
            write_text(options.out / f"{name}-{options.draw}.json", json.dumps(answer))
            print(
                name, options.draw, share, f"{time.perf_counter() - began:.0f} s", calibrating, told, fresh, flush=True
            )


def list_settings() -> dict[str, float]:
    """Return the numbers that say how slips are weighed."""
    from cowbird.defenses.p_scanner import slip_evidence

    return {name.lower(): getattr(slip_evidence, name) for name in SETTINGS}


def pair_rows(before: Row, after: Row) -> list[tuple[Row, Row]]:
    """Return the same questions without slips and with them."""
    pairs: list[tuple[Row, Row]] = []
    for part in ("single", "shares"):
        known = {_name(row): row for row in after[part]}
        pairs += [(row, known[_name(row)]) for row in before[part] if _name(row) in known]
    return pairs


def _name(row: Row) -> tuple[Any, ...]:
    return row["family"], row.get("trigger"), row["share"], row.get("known", True)


def compare(values: Sequence[tuple[float, float]]) -> Row:
    """Return the means of pairs, the mean difference with its interval of 95 %, and the worst pair."""
    before, after = np.array(values).T
    change = after - before
    half = float(stats.t.ppf(0.975, len(change) - 1) * stats.sem(change)) if len(change) > 1 else float("nan")
    mean = float(change.mean())
    return {
        "without": round(float(before.mean()), 3),
        "with": round(float(after.mean()), 3),
        "difference": round(mean, 3),
        "interval": [round(mean - half, 3), round(mean + half, 3)],
        "worst": round(float(change.min()), 3),
        "pairs": len(change),
    }


def table(options: argparse.Namespace, command: str) -> None:
    """Join answers; the pairs are catalogues and draws, each the mean of its families."""
    old, new = (
        {(told["catalog"], told["draw"]): told for told in map(_read, sorted(folder.rglob("*.json")))}
        for folder in (options.before, options.after)
    )
    kinds: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    families: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    catalogs: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    clean: dict[str, Row] = {}
    for key in sorted(old.keys() & new.keys()):
        here: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
        flagged: dict[str, list[tuple[float, float]]] = {}
        for before, after in pair_rows(old[key], new[key]):
            where = before["share"], before.get("known", True)
            pair = before["recall"], after["recall"]
            here.setdefault((*where, before["kind"]), []).append(pair)
            families.setdefault((*where, before["kind"], before["family"]), []).append(pair)
            if "clean_flagged" in before:
                label = f"{before['share']}, {'' if where[1] else 'no '}reference"
                flagged.setdefault(label, []).append((before["clean_flagged"], after["clean_flagged"]))
        for group, pairs in here.items():
            mean = (float(np.mean([b for b, _ in pairs])), float(np.mean([a for _, a in pairs])))
            kinds.setdefault(group, []).append(mean)
            catalogs.setdefault((*group, key[0]), []).append(mean)
        told = {label: [round(float(each), 4) for each in np.mean(pairs, axis=0)] for label, pairs in flagged.items()}
        fresh = [old[key]["fresh_clean_flagged"]["0.01"], new[key]["fresh_clean_flagged"]["0.01"]]
        clean[f"{key[0]}, draw {key[1]}"] = {"single": [round(each, 4) for each in fresh]} | told
    names = ("share", "reference", "triggers")
    rows, by_catalog, each = (
        sorted(
            (dict(zip((*names, last), group, strict=False)) | compare(pairs) for group, pairs in groups.items()),
            key=lambda row: row["difference"],
        )
        for groups, last in ((kinds, ""), (catalogs, "catalog"), (families, "family"))
    )
    cost = {f"{key[0]}, draw {key[1]}": new[key].get("asked_to_calibrate", {}) for key in sorted(new)}
    settings = next(iter(new.values())).get("settings", {})
    head = {
        "command": command,
        "settings": settings,
        "clean_flagged_without_and_with": clean,
        "asked_to_calibrate": cost,
    }
    parts = {"kinds": rows, "catalogs": by_catalog, "families": each}
    body = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
    body += [
        f" {json.dumps(name)}: [\n" + ",\n".join(f"  {json.dumps(row)}" for row in part) + "\n ]"
        for name, part in parts.items()
    ]
    write_text(options.out, "{\n" + ",\n".join(body) + "\n}\n")


def _read(path: Path) -> Row:
    return json.loads(path.read_text(encoding="utf-8"))


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("ask", "table"))
    add_mark_options(parser)
    add_scoring_options(parser)
    parser.add_argument("--catalogs", default="")
    parser.add_argument("--shares", default=SHARES, help="shares that are asked about, in this order; with commas")
    parser.add_argument("--families", default="", help="families that are asked about; all if empty")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--before", type=Path, help="for table: what scan_asking.py ask wrote")
    parser.add_argument("--after", type=Path, help="for table: what ask wrote")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    (ask if options.what == "ask" else table)(options, f"python benchmarks/scan_slips.py {shlex.join(sys.argv[1:])}")


if __name__ == "__main__":
    main()
