"""Catalogues with triggers planted in them, drawn in advance, so that a tagger reads every title once.

A tagger judges each title alone. So a catalogue of which 20 % carry a trigger is made from two lists that were read
before: its clean titles, and the same titles with the trigger. `draw_plantings` draws, for one catalogue:

- `reference`: clean titles that are known beforehand;
- `batch`: other clean titles, the ones that are scanned and planted in;
- `asked`: one unit a trigger or family of `tagger_families`, each planted in a fifth of the batch;
- `single`: titles with one trigger each, drawn anew for every title;
- `taught`: the same two kinds with triggers of `title_edits`, which scoring learns from.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cowbird.attacks.triggers import TRIGGERS, Trigger, list_families, plant
from cowbird.defenses.p_scanner.triggers.title_edits import (
    EDIT_FAMILIES,
    RECIPE_FAMILIES,
    EditedTitle,
    EditSources,
    draw_family,
    draw_recipe,
    edit_title,
    insert_text,
    list_taught_families,
    pick,
    weigh_families,
)
from cowbird.defenses.p_scanner.triggers.trigger_families import POSITIONS, Recipe
from cowbird.defenses.p_scanner.triggers.trigger_families import plant as plant_recipe
from cowbird.rng import stream
from cowbird.scanning.tagger_training import list_refused_texts
from tagger_families import ASKED, GENRES, INJECTIONS

MAX_HALF = 1500
"""Clean titles of a batch, and of a reference, at most."""
LARGEST_SHARE = 0.2
"""Share of the batch that a unit is planted in."""
SINGLES_PER_FAMILY, SINGLES_TAUGHT, UNITS_TAUGHT, TAUGHT_SHARE = 150, 4000, 110, 0.1
SEED = 33
PER_TITLE = (
    "word_per_title",
    "code_per_title",
    "word_replaced",
    "letter_dropped",
    "glued_period",
    "digits_for_letters",
    "swapped_case",
    "doubled_letters",
    "accents",
    "quoted_word",
    "two_part",
    "swapped_letters",
    "front_article",
)
"""Families that are a unit of their own, each title drawn anew where the family draws."""
FIXED = {"genre_word": GENRES, "prompt_injection": INJECTIONS, "sequel_number": ("2", "III")}
"""Texts of which each is a unit."""


@dataclass
class Unit:
    """A trigger, or a family of them, planted in titles of the batch."""

    name: str
    """The trigger's."""
    family: str
    """Its family."""
    kind: str
    """`taught`, `never taught` or `natural text`."""
    rows: list[int]
    """Titles of the batch, in the order of planting; the first so many make a share."""
    edited: list[EditedTitle]
    """The same with the trigger."""
    first: int = 0
    """Where its titles begin among all that are read."""


@dataclass
class Plantings:
    """All that is read of one catalogue."""

    catalog: str
    seed: int
    reference: list[str]
    batch: list[str]
    asked: list[Unit] = field(default_factory=list[Unit])
    single: list[Unit] = field(default_factory=list[Unit])
    taught: list[Unit] = field(default_factory=list[Unit])
    taught_single: list[Unit] = field(default_factory=list[Unit])

    def units(self) -> Iterator[Unit]:
        """Yield all units."""
        for group in (self.asked, self.single, self.taught, self.taught_single):
            yield from group

    def list_titles(self) -> list[str]:
        """Return all titles that are read: reference, batch, units."""
        titles = [*self.reference, *self.batch]
        for unit in self.units():
            unit.first = len(titles)
            titles += [edited.title for edited in unit.edited]
        return titles


def read_titles(folder: Path, name: str) -> list[str]:
    """Return the different titles of a catalogue, those without text left out."""
    titles: list[str] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return list(dict.fromkeys(title for title in titles if title.strip()))


def draw_plantings(
    titles: Sequence[str],
    catalog: str,
    words: Sequence[str],
    taught: Sequence[str],
    seed: int = SEED,
    learned: bool = False,
    asked: bool = False,
) -> Plantings:
    """Draw all of a catalogue.

    Args:
        titles: Its clean titles.
        catalog: Its name; decides with the seed what is drawn.
        words: Plain words that no tagger was taught with.
        taught: Plain words that scoring may learn with.
        seed: Draws halves, triggers and places.
        learned: Whether the catalogue is only learned from, so that nothing is drawn that is asked about.
        asked: Whether it is only asked about, so that nothing is drawn that is learned from.
    """
    order: list[int] = stream(seed, "halves", catalog).permutation(len(titles)).tolist()
    half = min(MAX_HALF, len(titles) // 2)
    made = Plantings(
        catalog, seed, [titles[row] for row in order[:half]], [titles[row] for row in order[half : 2 * half]]
    )
    if learned:
        _draw_taught(made, taught)
        return made
    many = round(LARGEST_SHARE * half)
    kinds = {kind: family for family, names in list_families().items() for kind in names}
    for nth, kind in enumerate(TRIGGERS):
        position = POSITIONS[nth % 3]
        made.asked.append(_plant_trigger(made, kind, kinds[kind], position, many))
    for family in PER_TITLE:
        made.asked.append(_plant_asked(made, family, ASKED[family][0], family, words, many, "asked"))
    for family, texts in FIXED.items():
        for text in texts:
            made.asked.append(_plant_text(made, family, text, many))
    for family, (kind, _) in ASKED.items():
        made.single.append(_plant_asked(made, family, kind, family, words, SINGLES_PER_FAMILY, "single"))
    if not asked:
        _draw_taught(made, taught)
    return made


def _rows(made: Plantings, *name: str) -> tuple[list[int], np.random.Generator]:
    rng = stream(made.seed, made.catalog, *name)
    return rng.permutation(len(made.batch)).tolist(), rng


def _plant_trigger(made: Plantings, kind: str, family: str, position: str, many: int) -> Unit:
    rows, rng = _rows(made, "trigger", kind)
    unit = Unit(f"{kind} ({position})", family, ASKED[family][0], [], [])
    trigger = Trigger.model_validate({"kind": kind, "position": position})
    for row in rows:
        planted = plant(made.batch[row], trigger, rng)
        if planted.spans and len(unit.rows) < many:
            _add(unit, row, EditedTitle(planted.title, planted.spans))
    return unit


def _plant_asked(
    made: Plantings, name: str, kind: str, family: str, words: Sequence[str], many: int, purpose: str
) -> Unit:
    rows, rng = _rows(made, purpose, family)
    unit = Unit(name, family, kind, [], [])
    for row in rows:
        if len(unit.rows) >= many:
            break
        edited = ASKED[family][1](made.batch[row], rng, words)
        if edited is not None:
            _add(unit, row, edited)
    return unit


def _plant_text(made: Plantings, family: str, text: str, many: int) -> Unit:
    rows, rng = _rows(made, "text", text)
    unit = Unit(f"{family}: {text}", family, ASKED[family][0], [], [])
    for row in rows[:many]:
        _add(unit, row, insert_text(made.batch[row], text, rng))
    return unit


def _add(unit: Unit, row: int, edited: EditedTitle) -> None:
    unit.rows.append(row)
    unit.edited.append(edited)


def _draw_taught(made: Plantings, words: Sequence[str]) -> None:
    refused = list_refused_texts()
    sources = EditSources(words, made.reference)
    rows, rng = _rows(made, "taught single")
    found: dict[str, Unit] = {}
    families = weigh_families(list_taught_families())
    for row in [*rows, *rows, *rows]:
        family = draw_family(rng, families)
        edited = edit_title(family, made.batch[row], rng, sources, refused)
        if edited is not None:
            _add(found.setdefault(family, Unit(family, family, "taught", [], [])), row, edited)
        if sum(len(unit.rows) for unit in found.values()) >= SINGLES_TAUGHT:
            break
    made.taught_single = list(found.values())
    many = round(TAUGHT_SHARE * len(made.batch))
    for nth in range(UNITS_TAUGHT):
        made.taught.append(_draw_unit(made, nth, words, refused, many))


def _draw_unit(made: Plantings, nth: int, words: Sequence[str], refused: frozenset[str], many: int) -> Unit:
    """Draw a recipe that stands in many titles, or an edit whose draws are the same in each."""
    rows, rng = _rows(made, "taught", str(nth))
    sources = EditSources(words, made.reference)
    families = (*RECIPE_FAMILIES, *RECIPE_FAMILIES, *EDIT_FAMILIES)
    while True:
        family = pick(families, rng)
        recipe: Recipe | None = None
        if family not in EDIT_FAMILIES:
            recipe = draw_recipe(family, rng, refused)
            if recipe is None:
                continue
        position = POSITIONS[int(rng.integers(3))]
        same = bool(rng.random() < 0.7)
        seed = int(rng.integers(2**31))
        unit = Unit(f"{family} {nth}", family, "taught", [], [])
        for row in rows:
            if len(unit.rows) >= many:
                break
            title = made.batch[row]
            if recipe is not None:
                planted = plant_recipe(title, recipe, position, rng)
                edited = None if planted.start < 0 else EditedTitle(planted.title, ((planted.start, planted.end),))
            else:
                drawn = np.random.default_rng(seed) if same else rng
                edited = edit_title(family, title, drawn, sources, refused)
            if edited is not None:
                _add(unit, row, edited)
        if len(unit.rows) >= 3:
            return unit
