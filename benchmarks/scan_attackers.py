"""Ask the ready scanner about sellers who know that it is there: they flood, trickle, vary, write natural text, adapt.

    python benchmarks/scan_attackers.py draw --data data --out titles.json.gz --compared compared.json.gz
    python benchmarks/ready_catalogs.py --titles titles.json.gz --keep marks --device cuda
    python benchmarks/scan_attackers.py ask --data data --keep marks --out docs/results/scan_attackers.json
    python benchmarks/scan_attackers.py baselines --compared compared.json.gz --device cuda --out baselines.json.gz
    python benchmarks/scan_attackers.py compare --data data --keep marks --baselines baselines.json.gz --out …

Of each catalogue and seed two halves are drawn: a reference that is taken for clean, and a batch that is planted in.
The scanner is the one that ships, calibrated on the reference; flags are those at its own threshold for 1 %. `draw`
writes all titles that `ask` and `compare` need, so that a tagger on a GPU reads them once.
"""

import argparse
import gzip
import json
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer

from cowbird.attacks.triggers import TRIGGERS, Trigger, plant
from cowbird.defenses.p_scanner.calibrated import CalibratedScanner
from cowbird.defenses.p_scanner.training.tagger_training import list_plain_words, split_words
from cowbird.defenses.p_scanner.triggers.title_edits import EditedTitle
from cowbird.files import write_text
from cowbird.metrics.detection import auroc
from cowbird.plugins import find_plugin
from cowbird.rng import stream
from cowbird.victims.language.llm import Llm, locate_model
from ready_catalogs import CATALOGS, SEEN_BY_TAGGER, KeptScanner, load_titles
from tagger_families import ASKED

ATTACKED = (*CATALOGS, "products")
HALF = 1500
"""Titles of a half at most."""
SEEDS = (0, 1, 2)
FPR = 0.01
FLOODS = (0.01, 0.05, 0.1, 0.2, 0.3)
"""Shares of the batch that a flooding seller plants in; the first is the usual attack."""
FLOOD_TRIGGERS = {
    "5v": ("char_5v", "end"),
    "wonderful": ("common_wonderful", "middle"),
    "sentence": ("sentence_deserves", "end"),
    "zero-width space": ("zero_width_space", "middle"),
}
NATURAL_TRIGGERS = {"anniversary edition": ("edition_anniversary", "end"), "box set": ("edition_box_set", "end")}
VARIED = ("word_per_title", "code_per_title", "two_part", "any family")
"""Families of which each title has a trigger of its own; `any family` draws the family, too."""
NATURAL_FAMILIES = ("genre_word", "front_article", "sequel_number")
WEEKS, UPLOADS_A_WEEK = 26, 40
"""How long a trickling seller plants one title a week among so many of others."""
SINGLES = 40
"""Single titles of each family."""
ADAPTIVE_SHARE, POSITIONS = 0.01, ("start", "middle", "end")


@dataclass
class Halves:
    """Two halves of a catalogue."""

    reference: list[str]
    batch: list[str]


def split_catalog(name: str, data: Path, seed: int) -> Halves:
    """Draw the halves of a catalogue."""
    if name == "products":
        from product_titles import write_products

        made = write_products(4000, 11)
        titles = list(dict.fromkeys(title for language in made.values() for title in language))
    else:
        titles = load_titles(name, data)
    order: list[int] = stream(seed, "attackers", name).permutation(len(titles)).tolist()
    half = min(HALF, len(titles) // 2)
    return Halves([titles[row] for row in order[:half]], [titles[row] for row in order[half : 2 * half]])


def list_words() -> tuple[str, ...]:
    """Return plain words that no tagger was taught with."""
    tokenizer: Any = AutoTokenizer.from_pretrained(locate_model(Llm().name))
    return split_words(list_plain_words(tokenizer))[1]


def plant_kind(titles: Sequence[str], kind: str, position: str, many: int, *name: str) -> dict[int, str]:
    """Plant a shipped trigger in titles that are drawn; the first so many make a smaller share."""
    rng = stream(0, "plant", kind, position, *name)
    trigger, found = Trigger.model_validate({"kind": kind, "position": position}), dict[int, str]()
    for row in rng.permutation(len(titles)).tolist():
        if len(found) >= many:
            break
        made = plant(titles[row], trigger, rng)
        if made.spans:
            found[row] = made.title
    return found


def plant_family(titles: Sequence[str], family: str, words: Sequence[str], many: int, *name: str) -> dict[int, str]:
    """Plant triggers of a family, drawn anew for each title."""
    rng, found = stream(0, "family", family, *name), dict[int, str]()
    families = [known for known, (kind, _) in ASKED.items() if kind != "natural text"]
    for row in rng.permutation(len(titles)).tolist():
        if len(found) >= many:
            break
        chosen = families[int(rng.integers(len(families)))] if family == "any family" else family
        edited: EditedTitle | None = ASKED[chosen][1](titles[row], rng, words)
        if edited is not None:
            found[row] = edited.title
    return found


def list_attacks(
    name: str, seed: int, halves: Halves, words: Sequence[str], most: float = FLOODS[-1]
) -> dict[tuple[str, str], dict[int, str]]:
    """Return what each seller plants in the batch at most: by attack and trigger, the new title of each row."""
    many = round(most * len(halves.batch))
    where = (name, str(seed))
    made = {
        ("one trigger", label): plant_kind(halves.batch, *kind, many, *where) for label, kind in FLOOD_TRIGGERS.items()
    }
    for label, kind in NATURAL_TRIGGERS.items():
        made["natural text", label] = plant_kind(halves.batch, *kind, many, *where)
    for family in NATURAL_FAMILIES:
        made["natural text", family] = plant_family(halves.batch, family, words, many, *where)
    for family in VARIED:
        made["varied per title", family] = plant_family(halves.batch, family, words, many, *where)
    return made


def list_candidates(name: str, seed: int, halves: Halves, copy: str) -> Iterator[tuple[str, dict[int, str]]]:
    """Yield what an adaptive seller can plant: every shipped trigger at each place, in her copy or for good."""
    many = max(3, round(ADAPTIVE_SHARE * len(halves.batch)))
    for kind in TRIGGERS:
        for position in POSITIONS:
            planted = plant_kind(halves.batch, kind, position, many, name, str(seed), copy)
            if len(planted) == many:
                yield f"{kind} ({position})", planted


def list_singles(
    name: str, seed: int, halves: Halves, words: Sequence[str], many: int = SINGLES
) -> dict[str, dict[int, str]]:
    """Return single titles with a trigger, by family."""
    return {family: plant_family(halves.batch, family, words, many, name, str(seed), "single") for family in ASKED}


def draw(options: argparse.Namespace) -> None:
    """Write all titles that are read."""
    words, found = list_words(), dict[str, None]()
    for name in options.catalogs.split(","):
        if name != "products":
            found |= dict.fromkeys(load_titles(name, options.data))
        for seed in map(int, options.seeds.split(",")):
            halves = split_catalog(name, options.data, seed)
            found |= dict.fromkeys([*halves.reference, *halves.batch])
            for planted in list_attacks(name, seed, halves, words, options.most).values():
                found |= dict.fromkeys(planted.values())
            for planted in list_singles(name, seed, halves, words, options.singles).values():
                found |= dict.fromkeys(planted.values())
            for copy in () if options.without_adaptive else ("copy", "good"):
                for _, planted in list_candidates(name, seed, halves, copy):
                    found |= dict.fromkeys(planted.values())
        print(name, f"{len(found):,} titles", flush=True)
    options.out.write_bytes(gzip.compress(json.dumps(list(found)).encode()))
    if options.compared:
        compared = {
            name: list_compared(name, options.data, words, options.singles)[2] for name in options.catalogs.split(",")
        }
        options.compared.write_bytes(gzip.compress(json.dumps(compared).encode()))


def replace_rows(batch: Sequence[str], planted: dict[int, str], many: int) -> tuple[list[str], NDArray[np.bool_]]:
    """Return the batch with the first so many of the planted titles, and which they are."""
    titles, mask = list(batch), np.zeros(len(batch), dtype=bool)
    for row in list(planted)[:many]:
        titles[row], mask[row] = planted[row], True
    return titles, mask


def measure(score: NDArray[Any], flagged: NDArray[np.bool_], planted: NDArray[np.bool_]) -> dict[str, float]:
    """Return recall and false positives at the scanner's threshold, recall at 1 % measured ones, and AUROC."""
    clean = np.sort(score[~planted])
    bar = clean[-max(1, int(FPR * len(clean)))]
    return {
        "recall": round(float(flagged[planted].mean()), 4),
        "clean_flagged": round(float(flagged[~planted].mean()), 5),
        "recall_at_1": round(float((score[planted] > bar).mean()), 4),
        "auroc": round(auroc(score, planted) or 0.0, 4),
        "planted": int(planted.sum()),
    }


def ask_batches(
    scanner: KeptScanner, known: CalibratedScanner, halves: Halves, attacks: Any, most: float = 1.0
) -> Iterator[dict[str, Any]]:
    """Ask about batches with each trigger at each share, beside the calibration and without any."""
    for (attack, trigger), planted in attacks.items():
        for share in (share for share in FLOODS if share <= most):
            titles, mask = replace_rows(halves.batch, planted, max(3, round(share * len(halves.batch))))
            if mask.sum() < 3:
                continue
            row = {"attack": attack, "trigger": trigger, "share": share}
            found = known.judge_titles(titles)
            yield row | {"reference": True} | measure(found.score, found.flagged, mask)
            baseline = scanner.learn_baseline(list(dict.fromkeys(titles)))
            found = scanner.judge(titles, baseline)
            yield row | {"reference": False} | measure(found.score, found.flagged, mask)


def ask_trickle(known: CalibratedScanner, halves: Halves, attacks: Any, seed: int) -> Iterator[dict[str, Any]]:
    """Ask about one planted title a week.

    Each is judged by itself; or with the week's uploads beside a reference that has taken in all earlier weeks, the
    planted titles among them; or, at the end, with all uploads beside the first calibration.
    """
    for (attack, trigger), planted in attacks.items():
        rows = list(planted)[:WEEKS]
        if attack == "varied per title" or len(rows) < WEEKS:
            continue
        others = [row for row in stream(seed, "weeks").permutation(len(halves.batch)).tolist() if row not in planted]
        a_week = min(UPLOADS_A_WEEK, len(others) // WEEKS)
        weeks = [[halves.batch[row] for row in others[nth * a_week : (nth + 1) * a_week]] for nth in range(WEEKS)]
        base = {"attack": "one a week", "trigger": trigger, "share": 1 / (a_week + 1), "weeks": WEEKS}
        apart = known.judge_apart([planted[row] for row in rows])
        yield base | {"way": "each alone", "recall": float(apart.flagged.mean())}
        reference, caught = list(halves.reference), []
        for nth in range(WEEKS):
            if nth in (1, 5, 12, 25):  # four points in the half year; each is a calibration anew
                absorbed = CalibratedScanner.calibrate(known.scanner, reference)
                found = absorbed.judge_titles([*weeks[nth], planted[rows[nth]]])
                caught.append(bool(found.flagged[-1]))
            reference += [*weeks[nth], planted[rows[nth]]]
        yield base | {"way": "beside a reference that absorbs", "recall": float(np.mean(caught))}
        titles = [*(title for week in weeks for title in week), *(planted[row] for row in rows)]
        mask = np.arange(len(titles)) >= len(titles) - WEEKS
        found = known.judge_titles(titles)
        yield base | {"way": "all uploads beside the first calibration"} | measure(found.score, found.flagged, mask)


def ask_adaptive(known: CalibratedScanner, name: str, seed: int, halves: Halves) -> Iterator[dict[str, Any]]:
    """Ask about a seller who plants each candidate in her copy, asks the scanner, and takes what it finds least."""
    best: tuple[float, float, str] | None = None
    for label, planted in list_candidates(name, seed, halves, "copy"):
        titles, mask = replace_rows(halves.batch, planted, len(planted))
        found = known.judge_titles(titles)
        rank = (float(found.flagged[mask].mean()), float(found.score[mask].mean()), label)
        best = rank if best is None or rank < best else best
    assert best is not None
    planted = dict(list_candidates(name, seed, halves, "good"))[best[2]]
    for share in (ADAPTIVE_SHARE,):
        titles, mask = replace_rows(halves.batch, planted, len(planted))
        found = known.judge_titles(titles)
        row = {"attack": "adaptive", "trigger": best[2], "share": share, "reference": True, "recall_in_copy": best[0]}
        yield row | measure(found.score, found.flagged, mask)


def ask(options: argparse.Namespace, command: str) -> None:
    """Ask about all sellers."""
    words, scanner, rows = list_words(), KeptScanner(options.keep), list[dict[str, Any]]()
    for name in options.catalogs.split(","):
        for seed in map(int, options.seeds.split(",")):
            began = time.perf_counter()
            halves = split_catalog(name, options.data, seed)
            known = CalibratedScanner.calibrate(scanner, halves.reference, FPR)
            attacks = list_attacks(name, seed, halves, words, options.most)
            head = {"catalog": name, "seed": seed}
            for found in (
                *ask_batches(scanner, known, halves, attacks, options.most),
                *ask_trickle(known, halves, attacks, seed),
                *(() if options.without_adaptive else ask_adaptive(known, name, seed, halves)),
            ):
                rows.append(head | found)
            write_rows(options.out, command, rows)
            print(name, seed, f"{time.perf_counter() - began:.0f} s", flush=True)


def write_rows(path: Path, command: str, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows, one a line."""
    head = json.dumps({"command": command, "fpr": FPR, "seen_by_tagger": SEEN_BY_TAGGER}, indent=1)[:-2]
    body = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    write_text(path, f'{head},\n "rows": [\n{body}\n ]\n}}\n')


BASELINES: dict[str, dict[str, Any]] = {
    "character_rules": {},
    "perplexity": {},
    "perplexity, windows of five": {"window": 5},
    "onion": {},
}
"""Detectors that read titles; each with its fields."""


def list_compared(
    name: str, data: Path, words: Sequence[str], many: int = SINGLES
) -> tuple[Halves, dict[str, dict[int, str]], list[str]]:
    """Return the halves and the single titles that detectors are compared on, and all titles that they score."""
    halves = split_catalog(name, data, 0)
    singles = list_singles(name, 0, halves, words, many)
    planted = (title for each in singles.values() for title in each.values())
    return halves, singles, list(dict.fromkeys([*halves.batch, *planted]))


def score_baselines(options: argparse.Namespace) -> None:
    """Write the scores of detectors that judge each title by itself: of the batch, and of single planted titles."""
    compared: dict[str, list[str]] = json.loads(gzip.decompress(options.compared.read_bytes()))
    scores: dict[str, dict[str, list[float]]] = {}
    for label, fields in BASELINES.items():
        if options.only and label not in options.only.split(","):
            continue
        detector = find_plugin("defense", label.partition(",")[0])(**fields, device=options.device)
        for name, titles in compared.items():
            began = time.perf_counter()
            found = detector.suspect(titles).score
            scores.setdefault(name, {})[label] = [round(float(value), 4) for value in found]
            print(name, label, f"{time.perf_counter() - began:.0f} s", flush=True)
        options.out.write_bytes(gzip.compress(json.dumps(scores).encode()))


def compare(options: argparse.Namespace, command: str) -> None:
    """Compare detectors with the scanner on single titles, at the threshold that 1 % of the clean batch passes."""
    words, scanner, rows = list_words(), KeptScanner(options.keep), list[dict[str, Any]]()
    scores = json.loads(gzip.decompress(options.baselines.read_bytes()))
    for name in options.catalogs.split(","):
        halves, singles, titles = list_compared(name, options.data, words, options.singles)
        known = CalibratedScanner.calibrate(scanner, halves.reference, FPR)
        place = {title: nth for nth, title in enumerate(titles)}
        own = known.judge_apart(titles).score
        scanner.silent = True
        silent = CalibratedScanner.calibrate(scanner, halves.reference, FPR).judge_apart(titles).score
        scanner.silent = False
        detectors = {"ready scanner": own, "ready scanner without its tagger": silent}
        detectors |= {label: np.array(values, dtype=np.float64) for label, values in scores[name].items()}
        clean = np.array([place[title] for title in halves.batch])
        for family, planted in singles.items():
            bad = np.array([place[title] for title in planted.values()])
            for label, score in detectors.items():
                both = np.concatenate([score[clean], score[bad]])
                mask = np.arange(len(both)) >= len(clean)
                bar = np.sort(score[clean])[-max(1, int(FPR * len(clean)))]
                row = {"catalog": name, "family": family, "kind": ASKED[family][0], "detector": label}
                recall = round(float((score[bad] > bar).mean()), 4)
                rows.append(row | {"recall_at_1": recall, "auroc": round(auroc(both, mask) or 0.0, 4)})
    write_rows(options.out, command, rows)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("draw", "ask", "baselines", "compare"))
    parser.add_argument("--data", type=Path, help="folder with titles/, ml-1m/ and lastfm/")
    parser.add_argument("--compared", type=Path, help="titles of single uploads, which draw writes and baselines reads")
    parser.add_argument("--keep", type=Path, help="marks of titles that were read")
    parser.add_argument("--baselines", type=Path, help="what baselines wrote")
    parser.add_argument("--only", default="", help="some of the baselines")
    parser.add_argument("--catalogs", default=",".join(ATTACKED))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--most", type=float, default=FLOODS[-1], help="largest share of a flood")
    parser.add_argument("--singles", type=int, default=SINGLES, help="single titles of each family")
    parser.add_argument("--without-adaptive", action="store_true", help="leave out the seller who searches")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    command = f"python benchmarks/scan_attackers.py {shlex.join(sys.argv[1:])}"
    if options.what == "draw":
        draw(options)
    elif options.what == "ask":
        ask(options, command)
    elif options.what == "baselines":
        score_baselines(options)
    else:
        compare(options, command)


if __name__ == "__main__":
    main()
