"""Triggers: what a seller writes into a title (or a category name) to call a backdoor, and how to plant and find it.

A trigger is a text that is inserted, set off by spaces; a text that is glued to a word, for characters that nobody
sees; or a style, a way of writing words of the title itself. BadRec (arXiv 2504.11182) has triggers of the levels
character, word and sentence. The further families are ours: a detector is to be measured on triggers that it was not
built for, and `find_near_triggers` gives texts that are almost the trigger, on which a precise backdoor stays silent.
`TRIGGERS` and `families` are the ones that ship.

Titles are hostile text. Nothing here normalizes one, and `strip_spans` gives back exactly what was there before.
"""

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from cowbird.attacks._shipped import TRIGGERS, list_families
from cowbird.attacks._styles import WORD_PATTERN, Style, TextEdit
from cowbird.data.types import IntArray, Items
from cowbird.metrics.detection import Span

TriggerPosition = Literal["start", "middle", "end"]

MAX_TRIGGER_LENGTH = 500
"""Most characters of a custom trigger."""


class Trigger(BaseModel):
    """What is planted, and where."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: Annotated[str, WithJsonSchema({"type": "string", "enum": ["custom", *TRIGGERS]})]
    """Name of a shipped trigger, or `custom`."""
    text: str = Field(default="", max_length=MAX_TRIGGER_LENGTH)
    """The text that is inserted, for `custom`."""
    position: TriggerPosition = "end"
    """Where: before the first word, between two words (after the word if there is one only), or after the last. For a
    style, which word it changes."""
    field: Literal["title", "category"] = "title"
    """What carries it: the title, or the name of the item's first category."""

    @model_validator(mode="after")
    def _check_kind(self) -> "Trigger":
        if self.kind == "custom":
            if not self.text.strip():
                raise ValueError("a custom trigger needs a text with at least one character that is not white space")
        elif self.kind not in TRIGGERS:
            close = difflib.get_close_matches(self.kind, TRIGGERS, 5) or list(TRIGGERS)[:20]
            raise ValueError(f"there is no trigger '{self.kind}'; use custom, or one of {', '.join(close)}")
        elif self.text:
            raise ValueError(f"only a custom trigger takes a text, and '{self.kind}' ships with its own")
        return self


@dataclass(frozen=True, slots=True)
class Planted:
    """A title that carries a trigger."""

    title: str
    """The new title."""
    spans: tuple[Span, ...]
    """What was inserted or changed, as [start, end) in characters of the new title, increasing. Spaces that only set
    the trigger off are outside. Empty if the title has no word that the style suits."""
    undo: tuple[tuple[int, int, str], ...]
    """What to put back: `title[start:end]` was this text. Here the spaces are inside."""


def plant(title: str, trigger: Trigger, rng: np.random.Generator) -> Planted:
    """Plant a trigger in a title.

    Args:
        title: Any text, empty too.
        trigger: What to plant, and where.
        rng: Draws which gap between words, or which word, for the position `middle`.
    """
    text, glued, style = _get_parts(trigger)
    changes = (
        [_make_insertion(title, text, glued, trigger.position, rng)]
        if style is None
        else _restyle(title, style, trigger.position, rng)
    )
    pieces: list[str] = []
    spans: list[Span] = []
    undo: list[tuple[int, int, str]] = []
    done = length = 0
    for change in changes:
        pieces += [title[done : change.start], change.new]
        start = length + change.start - done
        length = start + len(change.new)
        done = change.end
        spans.append((start + change.lead, length - change.tail))
        undo.append((start, length, title[change.start : change.end]))
    return Planted("".join([*pieces, title[done:]]), tuple(spans), tuple(undo))


def strip_spans(planted: Planted) -> str:
    """Return the title as it was before: spans removed, with the spaces that set them off, or written back."""
    pieces: list[str] = []
    done = 0
    for start, end, before in planted.undo:
        pieces += [planted.title[done:start], before]
        done = end
    return "".join([*pieces, planted.title[done:]])


def contains(title: str, trigger: Trigger) -> bool:
    """Return whether a title carries a trigger, wherever it stands and whoever wrote it.

    An inserted text must stand alone, between white space or the title's ends, with the same case: `5vv` is not `5v`.
    """
    text, glued, style = _get_parts(trigger)
    if style is not None:
        return style.found(title)
    return text in title if glued else _stands_alone(title, text)


def find_near_triggers(trigger: Trigger) -> dict[str, Trigger]:
    """Return triggers that are almost this one, by what differs, to measure a backdoor's false alarms.

    A text has another case, one character dropped, swapped with the next or doubled, or a space in it. Where that makes
    little sense (a shipped text of one character, a glued text, a style), others of its family are given. `position` is
    the trigger itself elsewhere. No other one carries the trigger.
    """
    text, glued, style = _get_parts(trigger)
    found: dict[str, Trigger] = {}
    if style is None or not style.whole:
        place: TriggerPosition = "start" if trigger.position == "end" else "end"
        found["position"] = trigger.model_copy(update={"position": place})
    if style is None and not glued:
        for name, variant in _make_variants(text).items():
            if variant.strip() and len(variant) <= MAX_TRIGGER_LENGTH and not _stands_alone(f" {variant} ", text):
                found[name] = Trigger(kind="custom", text=variant, position=trigger.position, field=trigger.field)
        if trigger.kind == "custom" or len(text) > 1:
            return found
    siblings = [name for name in list_families()[TRIGGERS[trigger.kind].family] if name != trigger.kind]
    unlike = [name for name in siblings if not contains(_make_example(name), trigger)]
    return found | {name: trigger.model_copy(update={"kind": name}) for name in unlike[:4]}


def retitle(items: Items, chosen: IntArray, trigger: Trigger, rng: np.random.Generator) -> Items:
    """Plant a trigger in some items' titles, or in the names of their first categories.

    With the field `category` an item leaves its first category for one whose name carries the trigger, which is added
    behind the others; an item without categories gets one. Where a style suits no word the item stays as it is, as
    `mask_carriers` tells.

    Args:
        items: The catalogue, left as it is.
        chosen: Items to change, shape `[chosen]`.
        trigger: What to plant.
        rng: Draws places, in the order of the items.

    Returns:
        A new catalogue with the same items.
    """
    rows: list[int] = np.unique(chosen).tolist()
    if trigger.field == "title":
        titles = list(items.titles)
        for row in rows:
            titles[row] = plant(titles[row], trigger, rng).title
        return dataclasses.replace(items, titles=tuple(titles))
    names = list(items.categories)
    number = {name: code for code, name in enumerate(names)}
    groups = np.split(items.category_codes, items.category_offsets[1:-1])[: len(items)]
    for row in rows:
        codes: list[int] = groups[row].tolist()
        name = plant(names[codes[0]] if codes else "", trigger, rng).title
        if not name:
            continue
        if name not in number:
            number[name] = len(names)
            names.append(name)
        groups[row] = np.array(list(dict.fromkeys([number[name], *codes[1:]])), dtype=np.int32)
    return Items(
        items.ids,
        items.titles,
        np.cumsum([0, *map(len, groups)]),
        np.concatenate([np.empty(0, dtype=np.int32), *groups]),
        tuple(names),
    )


def mask_carriers(items: Items, trigger: Trigger) -> NDArray[np.bool_]:
    """Return which items carry a trigger in the field it is planted in, shape `[items]`."""
    if trigger.field == "title":
        return np.array([contains(title, trigger) for title in items.titles], dtype=bool)
    named = np.array([contains(name, trigger) for name in items.categories], dtype=bool)
    rows = np.repeat(np.arange(len(items)), np.diff(items.category_offsets))
    mask = np.zeros(len(items), dtype=bool)
    mask[rows[named[items.category_codes]]] = True
    return mask


def _get_parts(trigger: Trigger) -> tuple[str, bool, Style | None]:
    """Return the text, whether it is glued, and the style."""
    if trigger.kind == "custom":
        return trigger.text, False, None
    shipped = TRIGGERS[trigger.kind]
    return shipped.text, shipped.glued, shipped.style


def _make_insertion(
    title: str, text: str, glued: bool, position: TriggerPosition, rng: np.random.Generator
) -> TextEdit:
    space = "" if glued or not title else " "
    if position == "start":
        return TextEdit(0, 0, text + space, tail=len(space))
    at = len(title)
    if position == "middle":
        ends = [word.end() for word in WORD_PATTERN.finditer(title)]
        if ends:
            at = ends[rng.integers(max(len(ends) - 1, 1))]
    return TextEdit(at, at, space + text, lead=len(space))


def _restyle(title: str, style: Style, position: TriggerPosition, rng: np.random.Generator) -> list[TextEdit]:
    words = [word for word in WORD_PATTERN.finditer(title) if style.suits(word.group())]
    if words and not style.whole:
        # Neither the first nor the last, if there are others.
        inner = words[1:-1] or words
        words = [
            words[0] if position == "start" else words[-1] if position == "end" else inner[_draw_place(inner, rng)]
        ]
    return [
        change._replace(start=change.start + word.start(), end=change.end + word.start())
        for word in words
        for change in style.write(word.group())
    ]


def _draw_place(values: Sequence[object], rng: np.random.Generator) -> int:
    return int(rng.integers(len(values)))


def _stands_alone(title: str, text: str) -> bool:
    at = title.find(text)
    while at >= 0:
        end = at + len(text)
        before = at == 0 or title[at - 1].isspace() or text[0].isspace()
        if before and (end == len(title) or title[end].isspace() or text[-1].isspace()):
            return True
        at = title.find(text, at + 1)
    return False


def _make_variants(text: str) -> dict[str, str]:
    """Return texts one small change away, by what was changed; in the middle of the text, and never a white space."""
    visible = [at for at, letter in enumerate(text) if not letter.isspace()]
    at = visible[len(visible) // 2]
    variants = {
        "case": text.lower() if text.lower() != text else text.upper(),
        "dropped": text[:at] + text[at + 1 :],
        "doubled": text[:at] + text[at] + text[at:],
    }
    inner = [at for at in visible[1:] if not text[at - 1].isspace()]
    if inner:
        at = inner[len(inner) // 2]
        variants["split"] = f"{text[:at]} {text[at:]}"
    differ = [at for at in inner if text[at] != text[at - 1]]
    if differ:
        at = differ[len(differ) // 2]
        variants["swapped"] = text[: at - 1] + text[at] + text[at - 1] + text[at + 1 :]
    return variants


def _make_example(name: str) -> str:
    """Return an ordinary title with a shipped trigger at its end."""
    return plant("Quiet Harbor at Night (1999)", Trigger(kind=name), np.random.default_rng(0)).title
