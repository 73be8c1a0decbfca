"""Learn how the ready scanner scores evidence.

    python benchmarks/scan_scoring.py draw --titles titles --marks marks --out first
    python benchmarks/scan_scoring.py draw --titles titles --marks marks --scans first --out scans
    python benchmarks/scan_scoring.py ship --scans scans --out scoring.safetensors

`marks` is what `scan_marks.py` writes: of each catalogue, by a tagger that never saw it or another of its kind. `draw`
plants what is taught and keeps features; the second time it knows from the first which titles are not trusted. `ship`
learns from all catalogues, or from all but some and others of their kind (`KINDS`). `scan_asking.py` asks about them.
"""

import argparse
import json
import pickle
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from cowbird.data.types import Float32Array, Int64Array
from cowbird.defenses.p_scanner.fragment_evidence import FragmentEvidence, describe_fragments
from cowbird.defenses.p_scanner.fragment_table import (
    FragmentTable,
    count_fragments,
)
from cowbird.defenses.p_scanner.scoring import (
    ScoringModel,
    SmallNetwork,
    choose_trusted,
)
from cowbird.defenses.p_scanner.small_tagger import place_pieces
from cowbird.defenses.p_scanner.title_evidence import CatalogProfile, describe_titles
from cowbird.defenses.p_scanner.title_traits import TitleTraits, mark_words
from cowbird.defenses.p_scanner.token_logits import TokenLogits, tokenize_titles
from cowbird.defenses.p_scanner.training.scoring_training import PlantedScan, learn_fragments, learn_scoring
from cowbird.defenses.p_scanner.training.tagger_training import list_plain_words, split_words
from cowbird.files import hash_texts
from cowbird.rng import stream
from cowbird.victims.language.llm import Llm, locate_model
from scan_marks import STEPS
from scan_plantings import SEED, Plantings, Unit, draw_plantings, read_titles
from shipped_scans import ShippedScans
from title_lists import ART, FOOD, GAMES, PACKAGES, PRODUCTS, SHOP, TEXTS, WORK

KINDS = (("movielens_100k", "movielens_1m"), ("lastfm",), PRODUCTS, SHOP, GAMES, ART, PACKAGES, WORK, FOOD, TEXTS)
"""Catalogues of one kind; scoring that is asked about one has learned from none of them."""
ASKED_CATALOGS = ("movielens_100k", "movielens_1m", "lastfm", "office", "anime", "products")
"""Catalogues of the table."""
SCANS_PER_CATALOG, MOST_TRIGGERS = 40, 4
SHARES_TAUGHT = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
SINGLES_IN_A_SCAN = 0.01
"""Of the titles with a trigger of their own, the share that stands in a scan."""


@dataclass
class Catalog:
    """A catalogue with all that was drawn of it, and what the tagger says."""

    plantings: Plantings
    scans: ShippedScans
    reference: Int64Array
    batch: Int64Array
    own: ShippedScans
    """The same titles as the tagger reads them without a reference."""

    @property
    def traits(self) -> TitleTraits:
        """All titles."""
        return self.scans.traits

    @property
    def table(self) -> FragmentTable:
        """Their fragments."""
        return self.scans.table


def load_catalog(
    name: str,
    titles: Path,
    marks: Path,
    words: Path | None = None,
    seed: int = SEED,
    learned: bool = False,
    own: Path | None = None,
) -> Catalog:
    """Read a catalogue's titles and marks; those of a small tagger if its words are given."""
    (path,) = marks.glob(f"*-{name}.npz")
    held = np.load(path)
    if words is None:
        tokenizer: Any = AutoTokenizer.from_pretrained(locate_model(Llm().name))
        (taught, asked), place = split_words(list_plain_words(tokenizer)), partial(tokenize_titles, tokenizer)
    else:
        (taught, asked), place = json.loads(words.read_text(encoding="utf-8")), place_pieces
    for part in (True, False):  # marks of what is asked about alone, or of all
        plantings = draw_plantings(read_titles(titles, name), name, asked, taught, seed, learned, part)
        texts = plantings.list_titles()
        if str(held["digest"]) == hash_texts(texts):
            break
    else:
        raise SystemExit(f"{path} is of other titles")
    read = place(texts)

    def describe_held(held: Any) -> ShippedScans:
        made = TokenLogits(read, held["mark"].astype(np.float32) / STEPS, held["verdict"])
        return ShippedScans.describe(mark_words(texts, made))

    scans = alone = describe_held(held)
    if own is not None:
        (path,) = own.glob(f"*-{name}.npz")
        other = np.load(path)
        if str(other["digest"]) != str(held["digest"]):
            raise SystemExit(f"{path} is of other titles")
        alone = describe_held(other)
    many, batch = len(plantings.reference), len(plantings.batch)
    return Catalog(
        plantings,
        scans,
        np.arange(many),
        many + np.arange(batch),
        alone,
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
    if known:
        reference = (count_fragments(catalog.table, catalog.reference), len(catalog.reference))
        evidence = describe_fragments(catalog.table, catalog.traits, rows, reference)
        return describe_titles(catalog.traits, rows, profile), evidence
    traits = catalog.own.traits
    evidence = describe_fragments(catalog.own.table, traits, rows, None)
    trusted = np.ones(len(rows), dtype=bool)
    if fragment is not None:
        trusted = choose_trusted(fragment.score(evidence.features), evidence, len(rows))
    usual = CatalogProfile.measure(traits, rows[trusted])
    features = describe_titles(traits, rows, usual)
    features[trusted] = describe_titles(traits, rows[trusted], usual, own=True)
    return features, evidence


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
            name,
            options.titles,
            options.marks,
            options.words,
            options.draw,
            name in options.learned.split(","),
            options.own,
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


def ship(options: argparse.Namespace, command: str) -> None:
    """Learn from all catalogues but those to leave out, and write the weights."""
    without = [name for part in options.without.split(",") for kind in KINDS for name in kind if part in kind]
    model, learned = learn(options.scans, without, options.seed)
    print(model.save(options.out, {"command": command, "catalogs": ",".join(learned), "seed": str(options.seed)}))


def add_mark_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where catalogues and marks lie."""
    parser.add_argument("--titles", type=Path, help="folder of catalogues, each a JSON list of titles")
    parser.add_argument("--marks", type=Path, help="what scan_marks.py wrote")
    parser.add_argument("--own", type=Path, help="the same marks without a reference, if they are others")
    parser.add_argument("--words", type=Path, help="if marks are a small tagger's: what small_tagger.py wrote")
    parser.add_argument("--draw", type=int, default=SEED, help="what scan_marks.py was given as --draw")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("draw", "ship"))
    add_mark_options(parser)
    parser.add_argument("--scans", type=Path, help="what draw wrote")
    parser.add_argument("--catalogs", default=",".join(ASKED_CATALOGS))
    parser.add_argument(
        "--without",
        default="",
        help="for ship: catalogues that are not learned from, nor others of their kinds; with commas",
    )
    parser.add_argument("--fragments", type=Path, help="for draw: where the network for fragments is kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learned", default="", help="for draw: catalogues that scan_marks.py was given as --learned")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    command = f"python benchmarks/scan_scoring.py {shlex.join(sys.argv[1:])}"
    if options.what == "draw":
        draw(options)
    else:
        ship(options, command)


if __name__ == "__main__":
    main()
