"""Learn how the ready scanner scores evidence, and measure it on catalogues that neither it nor the tagger saw.

    python benchmarks/scan_scoring.py draw --titles titles --marks marks --out first
    python benchmarks/scan_scoring.py draw --titles titles --marks marks --scans first --out scans
    python benchmarks/scan_scoring.py ask --titles titles --marks marks --scans scans --out answers --catalogs office
    python benchmarks/scan_scoring.py ship --scans scans --out scoring.safetensors
    python benchmarks/scan_scoring.py table --answers answers --out docs/results/ready_scanner.json

`marks` is what `scan_marks.py` writes: of each catalogue, by a tagger that never saw it or another of its kind. `draw`
plants what is taught and keeps features; the second time it knows from the first which titles are not trusted. `ask`
learns scoring from all catalogues but those of the asked one's kind (`KINDS`), then asks about single titles beside a
clean reference, and about the whole catalogue with one trigger in 0.2 to 20 % of its titles, with a reference of clean
titles from before and without. `ship` learns from all.
"""

import argparse
import json
import pickle
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from cowbird.data.types import Float32Array, Int64Array
from cowbird.defenses.p_scanner.fragment_evidence import (
    FragmentEvidence,
    FragmentNames,
    FragmentTable,
    count_fragments,
    describe_fragments,
    index_fragments,
)
from cowbird.defenses.p_scanner.fragment_verdicts import JudgedFragments, judge_fragments
from cowbird.defenses.p_scanner.scoring import (
    READY_SCORING,
    READY_SMALL_SCORING,
    TRICK_LOG_ODDS,
    ScoringModel,
    SmallNetwork,
    choose_trusted,
    load_scoring,
    weigh_fragments,
)
from cowbird.defenses.p_scanner.small_tagger import place_pieces
from cowbird.defenses.p_scanner.title_evidence import (
    CatalogProfile,
    TitleTraits,
    describe_titles,
    describe_traits,
    find_tricks,
    mark_words,
)
from cowbird.defenses.p_scanner.token_logits import TokenLogits, tokenize_titles
from cowbird.defenses.p_scanner.training.scoring_training import PlantedScan, learn_fragments, learn_scoring
from cowbird.defenses.p_scanner.training.tagger_training import list_plain_words, split_words
from cowbird.files import hash_texts, write_text
from cowbird.metrics.detection import auroc
from cowbird.rng import stream
from cowbird.storage import read_tensors
from cowbird.victims.language.llm import Llm, locate_model
from scan_marks import STEPS
from scan_plantings import SEED, Plantings, Unit, draw_plantings, read_titles
from title_lists import ART, FOOD, GAMES, PACKAGES, PRODUCTS, SHOP, TEXTS, WORK

KINDS = (("movielens_100k", "movielens_1m"), ("lastfm",), PRODUCTS, SHOP, GAMES, ART, PACKAGES, WORK, FOOD, TEXTS)
"""Catalogues of one kind; scoring that is asked about one has learned from none of them."""
ASKED_CATALOGS = ("movielens_100k", "movielens_1m", "lastfm", "office", "anime", "products")
"""Catalogues of the table."""
SCANS_PER_CATALOG, MOST_TRIGGERS = 40, 4
SHARES_TAUGHT = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
SINGLES_IN_A_SCAN = 0.01
"""Of the titles with a trigger of their own, the share that stands in a scan."""
SHARES = (0.002, 0.01, 0.05, 0.2)
FPR = 0.01


@dataclass
class Catalog:
    """A catalogue with all that was drawn of it, and what the tagger says."""

    plantings: Plantings
    traits: TitleTraits
    table: FragmentTable
    reference: Int64Array
    batch: Int64Array


def load_catalog(
    name: str, titles: Path, marks: Path, words: Path | None = None, seed: int = SEED, learned: bool = False
) -> Catalog:
    """Read a catalogue's titles and marks; those of a small tagger if its words are given."""
    if words is None:
        tokenizer: Any = AutoTokenizer.from_pretrained(locate_model(Llm().name))
        (taught, asked), place = split_words(list_plain_words(tokenizer)), partial(tokenize_titles, tokenizer)
    else:
        (taught, asked), place = json.loads(words.read_text(encoding="utf-8")), place_pieces
    plantings = draw_plantings(read_titles(titles, name), name, asked, taught, seed, learned)
    texts = plantings.list_titles()
    (path,) = marks.glob(f"*-{name}.npz")
    held = np.load(path)
    if str(held["digest"]) != hash_texts(texts):
        raise SystemExit(f"{path} is of other titles")
    made = TokenLogits(place(texts), held["mark"].astype(np.float32) / STEPS, held["verdict"])
    marked = mark_words(texts, made)
    many, batch = len(plantings.reference), len(plantings.batch)
    return Catalog(
        plantings,
        describe_traits(marked),
        index_fragments(marked, FragmentNames()),
        np.arange(many),
        many + np.arange(batch),
    )


def describe(
    catalog: Catalog, rows: Int64Array, known: bool, profile: CatalogProfile, fragment: SmallNetwork | None
) -> tuple[Float32Array, FragmentEvidence]:
    """Return features of a scan's titles, and evidence on its fragments.

    Args:
        catalog: Where the titles are from.
        rows: The scan's titles.
        known: Whether clean titles from before are known.
        profile: Theirs.
        fragment: Says without them which titles are trusted; `None` trusts all.
    """
    reference = (count_fragments(catalog.table, catalog.reference), len(catalog.reference)) if known else None
    evidence = describe_fragments(catalog.table, catalog.traits, rows, reference)
    if known:
        return describe_titles(catalog.traits, rows, profile), evidence
    trusted = np.ones(len(rows), dtype=bool)
    if fragment is not None:
        trusted = choose_trusted(fragment.score(evidence.features), evidence, len(rows))
    usual = CatalogProfile.measure(catalog.traits, rows[trusted])
    features = describe_titles(catalog.traits, rows, usual)
    features[trusted] = describe_titles(catalog.traits, rows[trusted], usual, own=True)
    return features, evidence


def judge(
    catalog: Catalog, rows: Int64Array, known: bool, profile: CatalogProfile, model: ScoringModel
) -> tuple[Float32Array, JudgedFragments, Float32Array]:
    """Return features of a scan's titles, its fragments, and what hidden characters add, as a scan judges them.

    Args:
        catalog: Where the titles are from.
        rows: The scan's titles.
        known: Whether clean titles from before are known.
        profile: Theirs.
        model: Judges fragments.
    """
    reference = (count_fragments(catalog.table, catalog.reference), len(catalog.reference)) if known else None
    judged = judge_fragments(model, catalog.table, catalog.traits, rows, reference)
    own = np.zeros(len(rows), dtype=bool)
    if not known:
        own = choose_trusted(judged.by_fragment, judged.evidence, len(rows))
        profile = CatalogProfile.measure(catalog.traits, rows[own])
    features = describe_titles(catalog.traits, rows, profile)
    features[own] = describe_titles(catalog.traits, rows[own], profile, own=True)
    return features, judged, weigh_tricks(catalog, rows, profile, own)


def weigh_tricks(catalog: Catalog, rows: Int64Array, profile: CatalogProfile, own: Any = None) -> Float32Array:
    """Return what hidden characters add to the score of titles."""
    return np.where(find_tricks(catalog.traits, rows, profile, own), np.float32(TRICK_LOG_ODDS), np.float32(0))


def draw_scans(catalog: Catalog, seed: int, fragment: SmallNetwork | None) -> Iterator[PlantedScan]:
    """Yield scans with triggers that are taught, half of them with a reference."""
    rng = stream(seed, "scans", catalog.plantings.catalog)
    profile = CatalogProfile.measure(catalog.traits, catalog.reference)
    many = len(catalog.batch)
    for _ in range(SCANS_PER_CATALOG):
        rows, trigger = catalog.batch.copy(), np.full(many, -1, dtype=np.int64)
        for nth in range(int(rng.integers(MOST_TRIGGERS + 1))):
            unit = catalog.plantings.taught[int(rng.integers(len(catalog.plantings.taught)))]
            wanted = max(2, round(SHARES_TAUGHT[int(rng.integers(len(SHARES_TAUGHT)))] * many))
            for at, row in enumerate(unit.rows[:wanted]):
                if trigger[row] < 0:
                    rows[row], trigger[row] = unit.first + at, nth + 1
        for unit in catalog.plantings.taught_single:
            for at, row in enumerate(unit.rows):
                if rng.random() < SINGLES_IN_A_SCAN and trigger[row] < 0:
                    rows[row], trigger[row] = unit.first + at, 0
        features, evidence = describe(catalog, rows, bool(rng.random() < 0.5), profile, fragment)
        yield PlantedScan(features, evidence, trigger)


def list_rows(units: Sequence[Unit]) -> Int64Array:
    """Return where the titles of units stand."""
    return np.concatenate([unit.first + np.arange(len(unit.rows)) for unit in units])


def draw_alone(catalog: Catalog) -> tuple[Float32Array, Float32Array]:
    """Return features of single titles beside the reference, and which carry a trigger."""
    profile = CatalogProfile.measure(catalog.traits, catalog.reference)
    planted = list_rows(catalog.plantings.taught_single)
    parts = [
        describe_titles(catalog.traits, catalog.reference, profile, own=True),
        describe_titles(catalog.traits, catalog.batch, profile),
        describe_titles(catalog.traits, planted, profile),
    ]
    label = np.repeat([0.0, 0.0, 1.0], [len(part) for part in parts]).astype(np.float32)
    return np.concatenate(parts), label


def draw(options: argparse.Namespace) -> None:
    """Draw what is learned from."""
    options.out.mkdir(parents=True, exist_ok=True)
    if options.fragments is not None and options.fragments.exists():
        fragment = pickle.loads(options.fragments.read_bytes())
    else:
        fragment = None if options.scans is None else learn_fragments(read_scans(options.scans, ())[1], options.seed)
        if options.fragments is not None:
            options.fragments.write_bytes(pickle.dumps(fragment))
    for name in options.catalogs.split(","):
        began = time.perf_counter()
        catalog = load_catalog(
            name, options.titles, options.marks, options.words, options.draw, name in options.learned.split(",")
        )
        held = (draw_alone(catalog), list(draw_scans(catalog, options.seed, fragment)))
        (options.out / f"{name}.pkl").write_bytes(pickle.dumps(held))
        print(name, f"{time.perf_counter() - began:.1f} s", flush=True)


def read_scans(
    scans: Path, without: Sequence[str]
) -> tuple[list[tuple[Float32Array, Float32Array]], list[PlantedScan], list[str]]:
    """Read what `draw` wrote of all catalogues but some: single titles, scans, and the catalogues' names."""
    alone, drawn, names = [], [], []
    for path in sorted(scans.glob("*.pkl")):
        if path.stem not in without:
            first, more = pickle.loads(path.read_bytes())
            alone.append(first)
            drawn += more
            names.append(path.stem)
    return alone, drawn, names


def learn(scans: Path, without: Sequence[str], seed: int) -> tuple[ScoringModel, list[str]]:
    """Learn scoring from all catalogues but some, and return it with those it learned from."""
    alone, drawn, names = read_scans(scans, without)
    return learn_scoring(drawn, alone, seed), names


def measure(score: Float32Array, planted: Any) -> tuple[float, float]:
    """Return AUROC, and recall where 1 % of the clean titles score as high."""
    clean = np.sort(score[~planted])
    bar = clean[-max(1, int(FPR * len(clean)))]
    return auroc(score, planted) or 0.0, float((score[planted] > bar).mean())


def silence(catalog: Catalog) -> Catalog:
    """Return a catalogue whose tagger says nothing of any title: what is left without it."""
    words = replace(
        catalog.traits.words,
        mark=np.zeros_like(catalog.traits.words.mark),
        verdict=np.zeros_like(catalog.traits.words.verdict),
    )
    table = replace(catalog.table, mark=np.zeros_like(catalog.table.mark))
    return replace(catalog, traits=describe_traits(words), table=table)


def ask_single(catalog: Catalog, model: ScoringModel) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Ask about single titles beside a clean reference; and what share of fresh clean ones is flagged."""
    profile = CatalogProfile.measure(catalog.traits, catalog.reference)
    known = model.score_alone(describe_titles(catalog.traits, catalog.reference, profile, own=True))
    known += weigh_tricks(catalog, catalog.reference, profile, np.ones(len(known), dtype=bool))
    clean = model.score_alone(describe_titles(catalog.traits, catalog.batch, profile))
    clean += weigh_tricks(catalog, catalog.batch, profile)
    raw = catalog.traits.words.verdict
    rows: list[dict[str, Any]] = []
    for unit in catalog.plantings.single:
        places = list_rows([unit])
        score = model.score_alone(describe_titles(catalog.traits, places, profile))
        score += weigh_tricks(catalog, places, profile)
        planted = np.arange(len(clean) + len(places)) >= len(clean)
        both, tagger = np.concatenate([clean, score]), np.concatenate([raw[catalog.batch], raw[places]])
        found, alone = measure(both, planted), measure(tagger, planted)
        row = {"family": unit.family, "kind": unit.kind, "share": "one title", "auroc": found[0], "recall": found[1]}
        rows.append(row | {"tagger_auroc": alone[0], "tagger_recall": alone[1]})
    flagged = {}
    for fpr in (0.01, 0.001):
        rank = int(fpr * (len(known) + 1))
        if rank:
            flagged[str(fpr)] = float((clean > np.sort(known)[-rank]).mean())
    return rows, flagged


def ask_shares(
    catalog: Catalog, model: ScoringModel, units: Sequence[Unit], shares: Sequence[float] = SHARES
) -> Iterator[dict[str, Any]]:
    """Ask about a catalogue of which a share carries one trigger."""
    profile, many = CatalogProfile.measure(catalog.traits, catalog.reference), len(catalog.batch)
    for unit in units:
        for share in shares:
            wanted = min(max(3, round(share * many)), len(unit.rows))
            rows, planted = catalog.batch.copy(), np.zeros(many, dtype=bool)
            rows[unit.rows[:wanted]] = unit.first + np.arange(wanted)
            planted[unit.rows[:wanted]] = True
            for known in (False, True):
                features, judged, tricks = judge(catalog, rows, known, profile, model)
                joined = model.score_titles(features, *judged)
                found = measure(joined.score + tricks, planted)
                row = {"family": unit.family, "kind": unit.kind, "trigger": unit.name, "share": share, "known": known}
                row |= {"titles": wanted, "auroc": found[0], "recall": found[1]}
                row |= {"recall_alone": measure(joined.alone + tricks, planted)[1]}
                row |= {"recall_fragments": measure(joined.fragment, planted)[1]}
                added = 0 if known else weigh_fragments(joined.fragment)
                row |= {"recall_networks": measure(joined.score + tricks - added, planted)[1]}
                yield row


def ask(options: argparse.Namespace, command: str) -> None:
    """Ask about catalogues."""
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.catalogs.split(","):
        (kind,) = (kind for kind in KINDS if name in kind)
        began = time.perf_counter()
        known = options.ready or options.scoring is not None
        model, learned = load_known(options, name) if known else learn(options.scans, kind, options.seed)
        model = replace(model, weighs_rare=not options.no_rare)
        catalog = load_catalog(name, options.titles, options.marks, options.words, options.draw)
        shares = [float(share) for share in options.shares.split(",") if share] or SHARES
        units = choose_units(catalog.plantings, options.each)
        single, flagged = ask_single(catalog, model)
        answer: dict[str, Any] = {
            "catalog": name,
            "draw": options.draw,
            "clean_titles": len(catalog.batch),
            "reference_titles": len(catalog.reference),
            "scoring_learned_from": learned,
            "fresh_clean_flagged": flagged,
            "single": single,
            "shares": list(ask_shares(catalog, model, units, shares)),
            "command": command,
        }
        if not options.quick:
            quiet = silence(catalog)
            answer["single_without_tagger"] = ask_single(quiet, model)[0]
            answer["shares_without_tagger"] = list(
                ask_shares(quiet, model, units, [share for share in SHARES[1:3] if share in shares])
            )
        write_text(options.out / f"{name}.json", json.dumps(answer))
        print(name, f"{time.perf_counter() - began:.0f} s", flush=True)
        show(answer)


def load_known(options: argparse.Namespace, name: str) -> tuple[ScoringModel, list[str]]:
    """Return a scoring that `ship` wrote, or the one that ships with the tagger whose marks are asked about."""
    if options.scoring is not None:
        path = options.scoring / f"{name}.safetensors"
        learned = read_tensors(path)[1]["catalogs"].split(",")
        if (both := {name} & set(learned)) or any(name in kind and set(kind) & set(learned) for kind in KINDS):
            raise SystemExit(f"{path} has learned from {both or 'others of its kind'}")
        return load_scoring(path), learned
    path = READY_SCORING if options.words is None else READY_SMALL_SCORING
    return load_scoring(path), ["as it ships"]


def choose_units(plantings: Plantings, each: int) -> list[Unit]:
    """Return some triggers of each family."""
    families: dict[str, list[Unit]] = {}
    for unit in plantings.asked:
        families.setdefault(unit.family, []).append(unit)
    rng = stream(0, "units")
    return [units[nth] for units in families.values() for nth in sorted(rng.permutation(len(units))[:each].tolist())]


def show(answer: dict[str, Any]) -> None:
    """Print the means of an answer."""
    print("  fresh clean titles flagged", answer["fresh_clean_flagged"])
    for part in ("single", "shares", "single_without_tagger", "shares_without_tagger"):
        rows = answer.get(part, [])
        for share in dict.fromkeys(row["share"] for row in rows):
            for known in (False, True):
                for kind in ("taught", "never taught", "natural text"):
                    same = [r for r in rows if r["share"] == share and r.get("known", True) == known]
                    same = [r for r in same if r["kind"] == kind]
                    if same:
                        keys = [
                            key
                            for key in same[0]
                            if key.endswith(("auroc", "recall", "alone", "fragments", "networks"))
                        ]
                        means = {key: round(float(np.mean([r[key] for r in same])), 3) for key in keys}
                        print(f"  {part} {share} {'reference' if known else 'itself'} {kind}: {means}", flush=True)


def table(options: argparse.Namespace, command: str) -> None:
    """Join answers: means over families, and each family's recall, worst first."""
    answers = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(options.answers.rglob("*.json"))]
    lines: list[dict[str, Any]] = []
    families: dict[str, dict[str, list[float]]] = {}
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for answer in answers:
        for part in ("single", "shares", "single_without_tagger", "shares_without_tagger"):
            for row in answer.get(part, []):
                row["part"], row["catalog"], row["draw"] = part, answer["catalog"], answer["draw"]
        rows = [row for part in ("single", "shares") for row in answer[part]]
        rows += answer.get("single_without_tagger", []) + answer.get("shares_without_tagger", [])
        for row in rows:
            silent = row["part"].endswith("without_tagger")
            key = (row["catalog"], silent, row["share"], row.get("known", True), row["kind"])
            groups.setdefault(key, []).append(row)
            if not silent and row["kind"] != "natural text":
                where = f"{row['share']}{'' if row.get('known', True) else ', no reference'}"
                found = families.setdefault(f"{where}: {row['family']}", {})
                found.setdefault(row["catalog"], []).append(row["recall"])
    for (name, silent, share, known, kind), same in groups.items():
        keys = (
            "auroc",
            "recall",
            "recall_alone",
            "recall_fragments",
            "recall_networks",
            "tagger_auroc",
            "tagger_recall",
        )
        means = {key: round(float(np.mean([r[key] for r in same])), 3) for key in keys if key in same[0]}
        head = {"catalog": name, "share": share, "reference": known, "kind": kind}
        lines.append(head | {"tagger": not silent, "families": len({r["family"] for r in same})} | means)
        lines[-1]["recall_by_draw"] = {
            draw: round(float(np.mean([r["recall"] for r in same if r["draw"] == draw])), 3)
            for draw in sorted({r["draw"] for r in same})
        }
    lines.sort(key=lambda row: row["recall"])
    each = {name: {one: float(np.mean(drawn)) for one, drawn in found.items()} for name, found in families.items()}
    means = {name: float(np.mean(list(found.values()))) for name, found in each.items()}
    order = sorted(families, key=lambda name: means[name])
    out = {
        "command": command,
        "commands": [answer["command"] for answer in answers],
        "fresh_clean_flagged": {f"{a['catalog']}, draw {a['draw']}": a["fresh_clean_flagged"] for a in answers},
        "scoring_learned_from": {answer["catalog"]: answer["scoring_learned_from"] for answer in answers},
    }
    body = ",\n".join(f"  {json.dumps(row)}" for row in lines)
    worst = ",\n".join(
        f"  {json.dumps({name: {one: round(recall, 4) for one, recall in each[name].items()}})}" for name in order
    )
    head = json.dumps(out, indent=1)[:-2]
    write_text(options.out, f'{head},\n "means": [\n{body}\n ],\n "recall_by_family": [\n{worst}\n ]\n}}\n')


def ship(options: argparse.Namespace, command: str) -> None:
    """Learn from all catalogues but those to leave out, and write the weights."""
    without = [name for part in options.without.split(",") for kind in KINDS for name in kind if part in kind]
    model, learned = learn(options.scans, without, options.seed)
    print(model.save(options.out, {"command": command, "catalogs": ",".join(learned), "seed": str(options.seed)}))


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("draw", "ask", "ship", "table"))
    parser.add_argument("--titles", type=Path, help="folder of catalogues, each a JSON list of titles")
    parser.add_argument("--marks", type=Path, help="what scan_marks.py wrote")
    parser.add_argument("--words", type=Path, help="if marks are a small tagger's: what small_tagger.py wrote")
    parser.add_argument("--scans", type=Path, help="what draw wrote")
    parser.add_argument("--answers", type=Path, help="what ask wrote")
    parser.add_argument("--catalogs", default=",".join(ASKED_CATALOGS))
    parser.add_argument("--each", type=int, default=1, help="triggers of each family")
    parser.add_argument("--ready", action="store_true", help="for ask: the scoring that ships, not one that is learned")
    parser.add_argument("--quick", action="store_true", help="leave out what is asked without the tagger")
    parser.add_argument(
        "--without",
        default="",
        help="for ship: catalogues that are not learned from, nor others of their kinds; with commas",
    )
    parser.add_argument("--scoring", type=Path, help="for ask: a folder of CATALOG.safetensors that ship wrote")
    parser.add_argument("--no-rare", action="store_true", help="for ask: rare spelling and capitals add nothing")
    parser.add_argument("--fragments", type=Path, help="for draw: where the network for fragments is kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learned", default="", help="for draw: catalogues that scan_marks.py was given as --learned")
    parser.add_argument("--shares", default="", help="for ask: shares that are asked about; all if empty")
    parser.add_argument("--draw", type=int, default=SEED, help="what scan_marks.py was given as --draw")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    command = f"python benchmarks/scan_scoring.py {shlex.join(sys.argv[1:])}"
    if options.what == "draw":
        draw(options)
    elif options.what == "ask":
        ask(options, command)
    elif options.what == "ship":
        ship(options, command)
    else:
        table(options, command)


if __name__ == "__main__":
    main()
