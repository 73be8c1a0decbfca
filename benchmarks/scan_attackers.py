"""Ask the ready scanner about sellers who know that it is there: they flood, trickle, vary, write natural text, adapt.

    python benchmarks/scan_attackers.py ask --data data --keep marks --tagger small --out office.json --catalogs office
    python benchmarks/scan_attackers.py ask … --taggers taggers --scorings scorings
    python benchmarks/scan_attackers.py language --data data --device cuda --out language.json
    python benchmarks/scan_attackers.py table --answers answers --out docs/results/scan_attackers.json

Of each catalogue and seed two halves are drawn: a reference that is taken for clean, and a batch that is planted in.
The scanner is calibrated on the reference, or knows none. `--taggers` names what `small_tagger.py fit` wrote, so
that the tagger has seen no catalogue of the asked kind, and `--scorings` what `scan_scoring.py ship --without` wrote.
Beside the scanner stand parts of it, the scanner without each part, and other detectors; each is measured at the best
threshold that 1 % of the clean titles of the very batch pass (`recall_at_1`). `language` asks those detectors that need
a language model. `table` writes means, and 95 % intervals over catalogues and seeds by drawing them again.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attacker_plantings import (
    ADAPTIVE_SHARE,
    ATTACKED,
    FLOODS,
    SEEDS,
    UPLOADS_A_WEEK,
    WEEKS,
    Halves,
    list_attacks,
    list_candidates,
    list_singles,
    list_words,
    split_catalog,
)
from attacker_scans import MUTED, PlantedCatalog, list_simple_scores, mute
from cowbird.data.types import Int64Array
from cowbird.defenses.p_scanner.calibrated import CalibratedScanner
from cowbird.defenses.p_scanner.inventory import Inventory
from cowbird.defenses.p_scanner.rounds.context_gain import find_phrases, measure_gains
from cowbird.files import write_text
from cowbird.metrics.detection import auroc
from cowbird.plugins import find_plugin
from cowbird.rng import stream
from cowbird.victims.fit_context import pick_device
from cowbird.victims.language.llm import Llm, load_llm
from ready_catalogs import (
    KIND_LEFT_OUT,
    SEEN_BY_SMALL_TAGGER,
    SEEN_BY_TAGGER,
    KeptScanner,
    make_kept,
    make_left_out,
)
from shipped_scans import FPRS, Found
from tagger_families import ASKED

FPR = 0.01
PART_SHARES = (0.01, 0.05, 0.3)
"""Shares at which parts and other detectors are asked, too."""
ABSORBED_AT = (5, 25)
"""Weeks in which a reference that takes in all uploads is calibrated anew."""
LANGUAGE_DETECTORS: dict[str, dict[str, Any]] = {
    "perplexity": {},
    "perplexity, windows of five": {"window": 5},
    "onion": {},
}
LANGUAGE_CLEAN, LANGUAGE_PLANTED = 300, 20
"""Titles that detectors with a language model read of each catalogue, and of each trigger."""
GAIN_SHARES, NO_GAIN = (0.01, 0.05, 0.3), 100.0
"""Shares at which a language model is asked for the context gain of what titles share; what a title without such a
phrase gains, more than any phrase does."""
SELLERS = ("floods", "adaptive", "trickle", "singles", "others")
DRAWS, ROWS_PER_WRITE = 2000, 20


def measure(found: Found, planted: NDArray[np.bool_]) -> dict[str, Any]:
    """Return recall at 1 % measured false positives and AUROC; and recall and false positives at the own threshold."""
    score = np.asarray(found.score)
    clean = np.sort(score[~planted])
    bar = clean[-max(1, int(FPR * len(clean)))]
    told: dict[str, Any] = {"recall_at_1": round(float((score[planted] > bar).mean()), 4)}
    told["auroc"] = round(auroc(score, planted) or 0.0, 4)
    if found.flagged is not None and found.review is not None:
        told |= {"recall": round(float(found.flagged[planted].mean()), 4)}
        told |= {"recall_or_review": round(float(found.review[planted].mean()), 4)}
        told |= {"clean_flagged": round(float(found.flagged[~planted].mean()), 5)}
    return told | {"planted": int(planted.sum())}


class Shop:
    """One catalogue under attack: the scanner, its parts and other detectors.

    Args:
        scanner: The scanner.
        halves: The catalogue.
        planted: All texts that are planted.
    """

    def __init__(self, scanner: KeptScanner, halves: Halves, planted: Sequence[str]) -> None:
        self.halves, self.scanner = halves, scanner
        self.catalog = PlantedCatalog(scanner, halves.reference, halves.batch, planted)
        self.scoring = scanner.scoring
        self.scans = self.catalog.scans
        self.inventory = self.scans.calibrate(self.scoring, self.catalog.old)
        self.muted = {name: mute(self.scoring, names) for name, names in MUTED.items()}
        self.batch = self.catalog.find(halves.batch)

    @cached_property
    def silent(self) -> Inventory:
        """What is usual if the tagger says nothing."""
        return self.catalog.silent.calibrate(self.scoring, self.catalog.old)

    @cached_property
    def calibrated(self) -> dict[str, Inventory]:
        """What is usual without each kind of evidence."""
        return {name: self.scans.calibrate(scoring, self.catalog.old) for name, scoring in self.muted.items()}

    def replace(self, planted: Mapping[int, str], many: int) -> tuple[Int64Array, NDArray[np.bool_]]:
        """Return the batch with the first so many of the planted titles, and which they are."""
        rows, mask = self.batch.copy(), np.zeros(len(self.batch), dtype=bool)
        chosen = list(planted)[:many]
        rows[chosen], mask[chosen] = self.catalog.find(planted[row] for row in chosen), True
        return rows, mask

    def ask(self, rows: Int64Array, reference: bool) -> Found:
        """Return what the scanner makes of rows."""
        if reference:
            return self.scans.ask_beside(self.scoring, self.inventory, rows)
        return self.catalog.ask_itself(rows)

    def calibrate_anew(self, old: Int64Array) -> Callable[[Int64Array], Found]:
        """Return what judges rows beside a calibration on other titles than the reference.

        Args:
            old: Rows that it takes for clean.
        """
        if not self.scanner.shows_context:
            known = self.scans.calibrate(self.scoring, old)
            return lambda rows: self.scans.ask_beside(self.scoring, known, rows)
        calibrated = CalibratedScanner.calibrate(self.scanner, self.catalog.list_texts(old), *FPRS)

        def judge(rows: Int64Array) -> Found:
            found = calibrated.judge_titles(self.catalog.list_texts(rows))
            return Found(found.score, found.flagged, found.flagged | found.review)

        return judge

    def ask_others(self, rows: Int64Array, reference: bool) -> Iterator[tuple[str, Found]]:
        """Yield what the scanner's parts and other detectors make of rows."""
        catalog = self.catalog
        if reference:
            yield "without tagger", catalog.silent.ask_beside(self.scoring, self.silent, rows)
            yield "without n-grams", self.scans.ask_beside(self.scoring, self.inventory, rows, apart=True)
            for name, scoring in self.muted.items():
                yield name, self.scans.ask_beside(scoring, self.calibrated[name], rows)
        else:
            yield "without tagger", catalog.silent.ask_itself(self.scoring, rows)
        simple = list_simple_scores(catalog.describe(rows, reference), len(rows), reference)
        yield from ((name, Found(score)) for name, score in simple.items())
        yield from ((name, Found(score[rows])) for name, score in catalog.score_alone(reference).items())


def ask_floods(shop: Shop, attacks: Any, others: bool) -> Iterator[dict[str, Any]]:
    """Ask about batches with each trigger at each share, with a reference and without.

    Args:
        shop: The catalogue.
        attacks: What is planted.
        others: Whether not the scanner is asked, but its parts and other detectors.
    """
    for (attack, trigger), planted in attacks.items():
        for share in PART_SHARES if others else FLOODS:
            rows, mask = shop.replace(planted, max(3, round(share * len(shop.batch))))
            if mask.sum() < max(3, round(0.9 * share * len(shop.batch))):
                continue
            for reference in (True, False):
                head = {"attack": attack, "trigger": trigger, "share": share, "reference": reference}
                asked = shop.ask_others(rows, reference) if others else (("scanner", shop.ask(rows, reference)),)
                for detector, found in asked:
                    yield head | {"detector": detector} | measure(found, mask)


def ask_singles(shop: Shop, singles: Mapping[str, Mapping[int, str]]) -> Iterator[dict[str, Any]]:
    """Ask about titles that are uploaded alone, by family."""
    catalog = shop.catalog
    for family, planted in singles.items():
        rows = np.concatenate([shop.batch, catalog.find(planted.values())])
        mask = np.arange(len(rows)) >= len(shop.batch)
        found = {"scanner": shop.scans.ask_beside(shop.scoring, shop.inventory, rows, apart=True)}
        found["without tagger"] = catalog.silent.ask_beside(shop.scoring, shop.silent, rows, apart=True)
        found["without rules"] = shop.scans.ask_beside(
            shop.muted["without rules"], shop.calibrated["without rules"], rows, apart=True
        )
        found |= {name: Found(score[rows]) for name, score in catalog.score_alone(reference=True).items()}
        head = {"attack": f"single: {ASKED[family][0]}", "trigger": family, "share": "one title", "reference": True}
        for detector, each in found.items():
            yield head | {"detector": detector} | measure(each, mask)


def ask_trickle(shop: Shop, attacks: Any, seed: int) -> Iterator[dict[str, Any]]:
    """Ask about one planted title a week for half a year.

    Each is judged by itself; or with the week's uploads beside a reference that has taken in all earlier weeks, the
    planted titles among them; or at the end, with all uploads, beside the first calibration or without a reference.
    """
    catalog = shop.catalog
    for (attack, trigger), planted in attacks.items():
        chosen = list(planted)[:WEEKS]
        if attack == "varied per title" or len(chosen) < WEEKS:
            continue
        others = [row for row in stream(seed, "weeks").permutation(len(shop.batch)).tolist() if row not in planted]
        a_week = min(UPLOADS_A_WEEK, len(others) // WEEKS)
        weeks = [shop.batch[others[nth * a_week : (nth + 1) * a_week]] for nth in range(WEEKS)]
        bad = catalog.find(planted[row] for row in chosen)
        head = {"attack": "one a week", "trigger": trigger, "share": 1 / (a_week + 1), "planted": WEEKS}
        head |= {"detector": "scanner", "natural": attack == "natural text"}
        alone = shop.scans.ask_beside(shop.scoring, shop.inventory, bad, apart=True)
        assert alone.flagged is not None
        yield head | {"way": "each alone", "reference": True, "recall": round(float(alone.flagged.mean()), 4)}
        caught: list[bool] = []
        for nth in ABSORBED_AT:
            absorbed = shop.calibrate_anew(np.unique(np.concatenate([catalog.old, *weeks[:nth], bad[:nth]])))
            found = absorbed(np.concatenate([weeks[nth], bad[nth : nth + 1]]))
            assert found.flagged is not None
            caught.append(bool(found.flagged[-1]))
        yield head | {"way": "beside a reference that absorbs", "reference": True, "recall": float(np.mean(caught))}
        rows = np.concatenate([*weeks, bad])
        mask = np.arange(len(rows)) >= len(rows) - WEEKS
        for reference in (True, False):
            found = shop.ask(rows, reference)
            yield head | {"way": "all uploads at once", "reference": reference} | measure(found, mask)


def ask_adaptive(shop: Shop, candidates: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Ask about a seller who plants each candidate in her copy, asks a scanner, and takes what it finds least.

    She asks the shop's own scanner; or she has no reference, and learns anew what is usual in her copy each time.
    """
    for way, reference in (("asks the shop's scanner", True), ("scans her copy anew", False)):
        best: tuple[float, float, str] | None = None
        for label, planted in candidates["copy"].items():
            rows, mask = shop.replace(planted, len(planted))
            found = shop.ask(rows, reference)
            assert found.flagged is not None
            rank = (float(found.flagged[mask].mean()), float(np.asarray(found.score)[mask].mean()), label)
            best = rank if best is None or rank < best else best
        assert best is not None
        planted = candidates["good"].get(best[2], candidates["copy"][best[2]])
        rows, mask = shop.replace(planted, len(planted))
        for known in (True, False):
            found = shop.ask(rows, known)
            row = {"attack": "adaptive", "way": way, "trigger": best[2], "share": ADAPTIVE_SHARE, "reference": known}
            row |= {"detector": "scanner", "candidates": len(candidates["copy"])}
            yield row | {"recall_in_copy": round(best[0], 4)} | measure(found, mask)


def make_scanner(options: argparse.Namespace, name: str) -> KeptScanner:
    """Return the scanner that ships, or one whose tagger, and scoring if given, left out the catalogue's kind."""
    if options.tagger == "cascade":
        return make_kept(options.keep, options.device, "cascade")
    return make_left_out(options.keep, options.device, options.tagger, name, options.taggers, options.scorings)


def ask(options: argparse.Namespace, command: str) -> None:
    """Ask about all sellers."""
    words, rows = list_words(options.words), list[dict[str, Any]]()
    told = SEEN_BY_TAGGER if options.tagger == "llm" else SEEN_BY_SMALL_TAGGER
    for name in options.catalogs.split(","):
        scanner = make_scanner(options, name)
        for seed in map(int, options.seeds.split(",")):
            began = time.process_time()
            halves = split_catalog(name, options.data, seed)
            attacks = list_attacks(name, seed, halves, words)
            singles = list_singles(name, seed, halves, words)
            ways = ("copy", "good") if "adaptive" in options.sellers else ()
            candidates = {copy: dict(list_candidates(name, seed, halves, copy)) for copy in ways}
            texts = [title for part in (attacks, singles) for planted in part.values() for title in planted.values()]
            texts += [title for part in candidates.values() for planted in part.values() for title in planted.values()]
            shop = Shop(scanner, halves, texts)
            head = {"catalog": name, "seed": seed}
            seen = told.get(name)
            if options.taggers is not None and name in KIND_LEFT_OUT[options.tagger]:
                seen = "neither it nor its kind" + ("" if options.scorings else "; its marks taught the scoring")
            parts: dict[str, Iterator[dict[str, Any]]] = {
                "floods": ask_floods(shop, attacks, others=False),
                "adaptive": ask_adaptive(shop, candidates) if candidates else iter(()),
                "trickle": ask_trickle(shop, attacks, seed),
                "singles": ask_singles(shop, singles),
                "others": ask_floods(shop, attacks, others=True) if seed < options.part_seeds else iter(()),
            }
            chosen = [part for name, part in parts.items() if name in options.sellers.split(",")]
            for nth, row in enumerate(chain.from_iterable(chosen)):
                rows.append(head | row | {"seen_by_tagger": seen})
                if nth % ROWS_PER_WRITE == 0:
                    write_rows(options.out, command, rows)
            write_rows(options.out, command, rows)
            print(name, seed, f"{time.process_time() - began:.0f} s of processor time", flush=True)


def ask_language(options: argparse.Namespace, command: str) -> None:
    """Ask detectors that read each title alone with a language model, so that a trigger's share is nothing to them."""
    words, rows = list_words(options.words), list[dict[str, Any]]()
    for name in options.catalogs.split(","):
        halves = split_catalog(name, options.data, 0)
        attacks = list_attacks(name, 0, halves, words, LANGUAGE_PLANTED / len(halves.batch))
        clean = halves.reference[:LANGUAGE_CLEAN]
        texts = [*clean, *(title for planted in attacks.values() for title in planted.values())]
        for detector, fields in LANGUAGE_DETECTORS.items():
            if options.only and detector not in options.only.split(","):
                continue
            began = time.process_time()
            found = find_plugin("defense", detector.partition(",")[0])(**fields, device=options.device).suspect(texts)
            known = np.isfinite(found.score)  # of a title of one word, onion says nothing
            score, first = np.where(known, found.score, found.score[known].min() - 1), len(clean)
            for (attack, trigger), planted in attacks.items():
                bad = score[first : first + len(planted)]
                first += len(planted)
                both = np.concatenate([score[: len(clean)], bad])
                head = {"catalog": name, "seed": 0, "attack": attack, "trigger": trigger, "share": "any"}
                mask = np.arange(len(both)) >= len(clean)
                rows.append(head | {"reference": False, "detector": detector} | measure(Found(both), mask))
            write_rows(options.out, command, rows)
            print(name, detector, f"{time.process_time() - began:.0f} s of processor time", flush=True)
        if not options.only or "context gain" in options.only.split(","):
            began = time.process_time()
            rows += ask_context_gain(name, halves, list_attacks(name, 0, halves, words), options.device)
            write_rows(options.out, command, rows)
            print(name, "context gain", f"{time.process_time() - began:.0f} s of processor time", flush=True)


def ask_context_gain(name: str, halves: Halves, attacks: Any, device: str) -> Iterator[dict[str, Any]]:
    """Ask a language model how well each phrase that recurs foretells what follows it; a title is its worst phrase.

    Phrases of the clean batch are asked about once.
    """
    where = pick_device(device)
    load = cache(partial(load_llm, Llm(), where, torch.bfloat16 if where.type == "cuda" else torch.float32))
    known = measure_gains(load, halves.batch, find_phrases(halves.batch), where)
    for (attack, trigger), planted in attacks.items():
        for share in GAIN_SHARES:
            texts = list(halves.batch)
            chosen = list(planted)[: max(3, round(share * len(texts)))]
            for row in chosen:
                texts[row] = planted[row]
            places = find_phrases(texts)
            new = {phrase: at for phrase, at in places.items() if phrase not in known}
            gains = known | measure_gains(load, texts, new, where)
            score, mask = np.full(len(texts), -NO_GAIN), np.zeros(len(texts), dtype=bool)
            mask[chosen] = True
            for phrase, at in places.items():
                for place in at:
                    score[place.row] = max(score[place.row], -gains.get(phrase, NO_GAIN))
            head = {"catalog": name, "seed": 0, "attack": attack, "trigger": trigger, "share": share}
            yield head | {"reference": False, "detector": "context gain"} | measure(Found(score), mask)


def write_rows(
    path: Path, command: str, rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any] | None = None
) -> None:
    """Write rows, one a line."""
    head = json.dumps({"command": command, "fpr": FPR} | dict(about or {}), indent=1)[:-2]
    body = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    write_text(path, f'{head},\n "rows": [\n{body}\n ]\n}}\n')


def draw_interval(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[float, float]:
    """Return a 95 % interval of a mean over rows, by drawing catalogues with their seeds again."""
    groups: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        groups.setdefault((row["catalog"], row["seed"]), []).append(row[key])
    means = np.array([np.mean(values) for values in groups.values()])
    drawn = means[stream(0, "table").integers(len(means), size=(DRAWS, len(means)))].mean(axis=1)
    return round(float(np.quantile(drawn, 0.025)), 3), round(float(np.quantile(drawn, 0.975)), 3)


def table(options: argparse.Namespace, command: str) -> None:
    """Write means over triggers by attack, share and detector, of each catalogue and of all, worst first."""
    answers = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(options.answers.glob("*.json"))]
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for row in (row for answer in answers for row in answer["rows"]):
        key = (row["attack"], row.get("way", ""), str(row["share"])[:6], row["reference"], row["detector"])
        groups.setdefault(("all", *key), []).append(row)
        if row["detector"] == "scanner":
            groups.setdefault((row["catalog"], *key), []).append(row)
    lines: list[dict[str, Any]] = []
    for key, same in groups.items():
        line = dict(zip(("catalog", "attack", "way", "share", "reference", "detector"), key, strict=True))
        for name in ("recall_at_1", "auroc", "recall", "recall_or_review", "clean_flagged"):
            if (known := [row for row in same if name in row]) and (
                name in ("recall", "recall_at_1") or key[0] == "all"
            ):
                line[name] = round(float(np.mean([row[name] for row in known])), 4)
                if name in ("recall", "recall_at_1") and key[0] == "all":
                    line[f"{name}_interval"] = draw_interval(known, name)
        lines.append({name: value for name, value in line.items() if value != ""} | {"rows": len(same)})
    lines.sort(key=lambda line: line.get("recall_at_1", line.get("recall", 0.0)))
    write_rows(options.out, command, lines, {"commands": [answer["command"] for answer in answers]})


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("ask", "language", "table"))
    parser.add_argument("--data", type=Path, help="folder with titles/, ml-1m/ and lastfm/")
    parser.add_argument("--keep", type=Path, help="marks of titles that were read")
    parser.add_argument("--words", type=Path, help="what `small_tagger.py words` wrote, in place of the tokenizer")
    parser.add_argument("--tagger", default="llm", choices=("llm", "small", "cascade"))
    parser.add_argument("--taggers", type=Path, help="taggers of --tagger's kind that left kinds out")
    parser.add_argument("--scorings", type=Path, help="scorings that left kinds out, by catalogue")
    parser.add_argument("--answers", type=Path, help="what ask and language wrote")
    parser.add_argument("--only", default="", help="for language: some of the detectors")
    parser.add_argument("--catalogs", default=",".join(ATTACKED))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--part-seeds", type=int, default=1, help="seeds below are asked about parts, too")
    parser.add_argument("--sellers", default=",".join(SELLERS), help="some of them; `others` are other detectors")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    command = f"python benchmarks/scan_attackers.py {shlex.join(sys.argv[1:])}"
    {"ask": ask, "language": ask_language, "table": table}[options.what](options, command)


if __name__ == "__main__":
    main()
