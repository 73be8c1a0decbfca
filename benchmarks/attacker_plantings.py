"""What sellers plant who know that the ready scanner is there: floods, trickles, variants, natural text, candidates.

Of each catalogue and seed two halves are drawn: a reference that is taken for clean, and a batch that is planted in.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cowbird.attacks.triggers import Trigger, list_families, plant
from cowbird.defenses.p_scanner.triggers.title_edits import EditedTitle
from cowbird.rng import stream
from ready_catalogs import CATALOGS, load_titles
from tagger_families import ASKED

ATTACKED = (*CATALOGS, "products")
HALF = 600
"""Titles of a half at most."""
SEEDS = (0, 1)
FLOODS = (0.01, 0.05, 0.1, 0.2, 0.3)
"""Shares of the batch that a flooding seller plants in; the first is the usual attack."""
FLOOD_TRIGGERS = {
    "5v": ("char_5v", "end"),
    "wonderful": ("common_wonderful", "middle"),
    "sentence": ("sentence_deserves", "end"),
    "cf": ("rare_cf", "start"),
    "zero-width space": ("zero_width_space", "middle"),
}
NATURAL_TRIGGERS = {"anniversary edition": ("edition_anniversary", "end"), "box set": ("edition_box_set", "end")}
VARIED = ("word_per_title", "code_per_title", "two_part", "any family")
"""Families of which each title has a trigger of its own; `any family` draws the family, too."""
NATURAL_FAMILIES = ("genre_word", "front_article", "sequel_number")
WEEKS, UPLOADS_A_WEEK = 26, 40
"""How long a trickling seller plants one title a week among so many of others."""
SINGLES = 10
"""Single titles of each family."""
ADAPTIVE_SHARE, POSITIONS = 0.01, ("start", "middle", "end")
KINDS_A_FAMILY = 2
"""Candidates of each family of shipped triggers that an adaptive seller tries."""


@dataclass
class Halves:
    """Two halves of a catalogue."""

    reference: list[str]
    batch: list[str]


def split_catalog(name: str, data: Path, seed: int) -> Halves:
    """Draw the halves of a catalogue."""
    titles = load_titles(name, data)
    order: list[int] = stream(seed, "attackers", name).permutation(len(titles)).tolist()
    half = min(HALF, len(titles) // 2)
    return Halves([titles[row] for row in order[:half]], [titles[row] for row in order[half : 2 * half]])


def list_words(kept: Path | None = None) -> tuple[str, ...]:
    """Return plain words that no tagger was taught with; from a file of `small_tagger.py words`, or the tokenizer."""
    if kept is not None:
        return tuple(json.loads(kept.read_text(encoding="utf-8"))[1])
    from transformers import AutoTokenizer

    from cowbird.defenses.p_scanner.training.tagger_training import list_plain_words, split_words
    from cowbird.victims.language.llm import Llm, locate_model

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
    """Yield what an adaptive seller can plant, in her copy or for good: some shipped triggers of each family."""
    many = max(3, round(ADAPTIVE_SHARE * len(halves.batch)))
    kinds = [kind for names in list_families().values() for kind in names[:KINDS_A_FAMILY]]
    for nth, kind in enumerate(kinds):
        position = POSITIONS[nth % len(POSITIONS)]
        planted = plant_kind(halves.batch, kind, position, many, name, str(seed), copy)
        if len(planted) == many:
            yield f"{kind} ({position})", planted


def list_singles(
    name: str, seed: int, halves: Halves, words: Sequence[str], many: int = SINGLES
) -> dict[str, dict[int, str]]:
    """Return single titles with a trigger, by family."""
    return {family: plant_family(halves.batch, family, words, many, name, str(seed), "single") for family in ASKED}
