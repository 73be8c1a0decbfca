"""BadRec by a seller who knows the scanner: she searches for the trigger that her own copy of it misses.

The paper (arXiv 2504.11182) has no adaptive attacker; this one is ours. She has the clean catalogue and a copy of the
defense, fitted by herself with a seed of her own. Candidates are triggers that ship, and texts made from words and
endings of the catalogue's own titles. Each is planted in as many titles as she has items, several candidates at once in
different titles, and the copy judges the whole catalogue. The best are changed a little, round after round. In the end
the finalists are planted one at a time in her own titles, where they would stand, and the one that is flagged least is
taken; between equals the mean rank of its titles decides, and between those that top the catalogue their mean score.

A backdoor is learned only if its trigger is told from clean titles, so a candidate stands in none of them, and is never
a single visible character. Whether it is learned is not searched: the experiment measures it, as for every attack.
"""

import re
import string
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from pydantic import Field, field_validator

from cowbird.attacks.badrec import BadRec
from cowbird.attacks.base import Adaptive, SearchResult, SuspicionScorer
from cowbird.attacks.triggers import (
    MAX_TRIGGER_LENGTH,
    TRIGGERS,
    Trigger,
    TriggerPosition,
    contains,
    list_families,
    plant,
)
from cowbird.data.types import Float32Array, Int32Array, TrainingData
from cowbird.errors import UserError
from cowbird.metrics.detection import threshold_at_fpr

COMPARISON_FPR = 0.01
"""Share of the clean titles that the copy may flag when candidates are compared."""
MAX_CANDIDATES_PER_CATALOG = 6
"""Candidates planted in one catalogue, in different titles, at most."""
MAX_CATALOG_SHARE = 0.1
"""Share of the catalogue that they may change together; one is always planted."""
PARENT_CANDIDATES = 8
"""Best candidates so far, of which new ones are made."""
FINAL_CANDIDATES = 5
"""Candidates that are planted alone in the end."""
DRAWS_PER_CANDIDATE = 20
"""Times as many draws as candidates are wanted, after which no more are made."""
TEXTS_PER_TRIGGER = 2
"""Texts that are written from the catalogue to each trigger that ships."""
TEXT_TEMPLATES = (
    *("{0} {1}", "({0})", "({0} {1})", "[{0}]", "- {0}", "- {0} {1}", ": {0}", ": {0} {1}", "& {0}"),
    *("({0} Edition)", "({0} Version)", "and the {0}", "of the {0}"),
)
"""What words of the catalogue are put into."""
_ENDING = re.compile(r"(?<=\s)[(\[][^()\[\]]{1,40}[)\]]$")
_WORD = re.compile(r"[^\W\d_]{2,}")


class AdaptiveBadRec(BadRec, Adaptive):
    """Write the trigger that evades a known defense into target titles, else as BadRec."""

    trigger: Trigger = Trigger(kind="char_5v")
    """The first candidate. It is planted as it is where nothing was searched, for want of a defense's copy."""
    candidates: int = Field(default=60, ge=1)
    """Triggers that are tried first, and again in each round."""
    rounds: int = Field(default=3, ge=0)
    """How often new candidates are made of the best so far."""
    positions: tuple[TriggerPosition, ...] = Field(default=("start", "middle", "end"), min_length=1)
    """Where in a title candidates may stand."""
    longest: int = Field(default=40, ge=2, le=MAX_TRIGGER_LENGTH)
    """Most characters of a candidate's text."""

    @field_validator("trigger")
    @classmethod
    def _check_field(cls, trigger: Trigger) -> Trigger:
        if trigger.field != "title":
            raise ValueError("the defenses that are known read titles, so the trigger stands in the title")
        return trigger

    def settle(self, data: TrainingData, suspect: SuspicionScorer, rng: np.random.Generator) -> Self:
        """Return the attack with the trigger that the defense's copy finds least; see `Adaptive.settle`.

        Raises:
            UserError: If there are no such targets, or no candidate can be planted in them and told from clean titles.
        """
        targets = self.targets.choose(data, rng)
        trigger, found = _Search(self, data.items.titles, targets, suspect, rng).run()
        return self.model_copy(update={"trigger": trigger, "found": found})

    def describe_choice(self) -> dict[str, Any]:
        """Return the trigger, and how it was chosen; see `Attack.describe_choice`."""
        return {"trigger": self.trigger.model_dump(mode="json")} | super().describe_choice()


class _Judgment(NamedTuple):
    """What the defense's copy makes of titles with a candidate; the least is the best."""

    flagged: float
    """Share of them that is flagged."""
    rank: float
    """Share of the clean titles that are less suspicious, ties counted half."""
    score: float
    """Mean suspicion of them, in the unit of the copy's scores: it leads on where all of them top the catalogue."""


WORST_JUDGMENT = _Judgment(1.0, 1.0, np.inf)


class _Search:
    """One search for a trigger.

    Args:
        attack: What is searched for.
        titles: Those of the clean catalogue, any texts.
        targets: The seller's items, shape `[targets]`.
        suspect: The copy of the defense.
        rng: All that is drawn.
    """

    def __init__(
        self,
        attack: AdaptiveBadRec,
        titles: Sequence[str],
        targets: Int32Array,
        suspect: SuspicionScorer,
        rng: np.random.Generator,
    ) -> None:
        self.attack, self.titles, self.suspect, self.rng = attack, titles, suspect, rng
        self.own: list[int] = targets.tolist()
        self.words = extract_words(titles)
        endings = (_ENDING.search(title) for title in titles)
        self.endings = tuple(dict.fromkeys(end.group() for end in endings if end and end.group().isprintable()))
        self.seen: set[Trigger] = set()
        self.known: dict[Trigger, _Judgment] = {}

    def run(self) -> tuple[Trigger, SearchResult]:
        """Search, and return the trigger and what was found out about it."""
        self._screen(self._pick_usable(self._propose_first()))
        if not self.known:
            raise UserError(
                "No candidate trigger can be written into all targets and is in no title of the clean catalogue.",
                "Raise 'candidates' or 'longest', or choose targets with titles.",
            )
        for _ in range(self.attack.rounds):
            self._screen(self._pick_usable(self._propose_variants(self._pick_best(PARENT_CANDIDATES))))
        final = {trigger: self._judge([(trigger, self.own)])[0] for trigger in self._pick_best(FINAL_CANDIDATES)}
        chosen = min(final, key=final.__getitem__)
        return chosen, SearchResult(tried=len(self.known), flagged=final[chosen].flagged, rank=final[chosen].rank)

    def _pick_best(self, count: int) -> list[Trigger]:
        return sorted(self.known, key=self.known.__getitem__)[:count]

    # Candidates

    def _pick_usable(self, drawn: Iterable[Trigger]) -> list[Trigger]:
        """Return as many candidates as are wanted, new ones, that a backdoor could be learned of."""
        taken: list[Trigger] = []
        for trigger in drawn:
            if trigger in self.seen:
                continue
            self.seen.add(trigger)
            if self._is_plantable(trigger):
                taken.append(trigger)
            if len(taken) == self.attack.candidates:
                break
        return taken

    def _is_plantable(self, trigger: Trigger) -> bool:
        """Tell whether a trigger is of an allowed length, in no clean title, and can be in all of the seller's."""
        text = _get_text(trigger)
        if text is not None and not 2 <= len(text) <= self.attack.longest:
            return False
        if any(contains(title, trigger) for title in self.titles):
            return False
        return all(contains(plant(self.titles[item], trigger, self.rng).title, trigger) for item in self.own)

    def _propose_first(self) -> Iterator[Trigger]:
        """Yield the attack's own trigger, then those that ship in turns with texts made from the catalogue."""
        yield self.attack.trigger
        names: list[str] = self.rng.permutation(list(TRIGGERS)).tolist()
        for nth in range(DRAWS_PER_CANDIDATE * self.attack.candidates):
            if nth < len(names):
                yield Trigger(kind=names[nth], position=self._draw_position())
            for _ in range(TEXTS_PER_TRIGGER):
                text = self._write_text()
                if text:
                    yield self._make_custom(text)

    def _propose_variants(self, parents: Sequence[Trigger]) -> Iterator[Trigger]:
        """Yield triggers that differ a little from some: in their place, in a word, or by what they lack."""
        for _ in range(DRAWS_PER_CANDIDATE * self.attack.candidates):
            parent = parents[int(self.rng.integers(len(parents)))]
            text, change = _get_text(parent), int(self.rng.integers(3))
            if change == 0:
                yield parent.model_copy(update={"position": self._draw_position()})
            elif text is None:
                family = list_families()[TRIGGERS[parent.kind].family]
                yield Trigger(kind=self._draw_one(family), position=parent.position)
            else:
                made = self._reword(text) if change == 1 else self._shorten(text)
                yield Trigger(kind="custom", text=made, position=parent.position)

    def _write_text(self) -> str:
        """Return a text that looks like the catalogue's own; empty if there is nothing to make it of."""
        if self.endings and (not self.words or self.rng.random() < 0.3):
            return self._reword(self._draw_one(self.endings))
        if not self.words:
            return ""
        return self._draw_one(TEXT_TEMPLATES).format(self._draw_one(self.words), self._draw_one(self.words))

    def _reword(self, text: str) -> str:
        """Draw about half of the digits anew, and one of the words."""
        text = re.sub(
            "[0-9]", lambda old: old.group() if self.rng.random() < 0.5 else self._draw_one(string.digits), text
        )
        places = list(_WORD.finditer(text))
        if not places or not self.words:
            return text
        place = places[int(self.rng.integers(len(places)))]
        return (text[: place.start()] + self._draw_one(self.words) + text[place.end() :])[:MAX_TRIGGER_LENGTH]

    def _shorten(self, text: str) -> str:
        """Leave out one of the words, or the last character of one that stands alone."""
        pieces = text.split()
        if len(pieces) == 1:
            return pieces[0][:-1] or text
        del pieces[int(self.rng.integers(len(pieces)))]
        return " ".join(pieces)

    def _make_custom(self, text: str) -> Trigger:
        return Trigger(kind="custom", text=text, position=self._draw_position())

    def _draw_position(self) -> TriggerPosition:
        return self.attack.positions[int(self.rng.integers(len(self.attack.positions)))]

    def _draw_one(self, options: Sequence[str]) -> str:
        return options[int(self.rng.integers(len(options)))]

    # Judgments

    def _screen(self, triggers: Sequence[Trigger]) -> None:
        """Judge candidates, as many at once as leave most of the catalogue as it is, in titles drawn for each."""
        size = len(self.own)
        step = max(1, min(MAX_CANDIDATES_PER_CATALOG, int(MAX_CATALOG_SHARE * len(self.titles) / size)))
        for first in range(0, len(triggers), step):
            some = triggers[first : first + step]
            rows: list[int] = self.rng.permutation(len(self.titles)).tolist()
            planted = [(trigger, rows[nth * size : (nth + 1) * size]) for nth, trigger in enumerate(some)]
            self.known |= zip(some, self._judge(planted), strict=True)

    def _judge(self, planted: Sequence[tuple[Trigger, Sequence[int]]]) -> list[_Judgment]:
        """Plant triggers, each in titles of its own or in listings with such titles, and return the copy's judgment."""
        titles, places = list(self.titles), list[list[int]]()
        for trigger, rows in planted:
            places.append([])
            for row in rows:
                made = plant(self.titles[row], trigger, self.rng)
                if not made.spans:
                    continue  # a style that suits no word of it
                if self.attack.listing == "new":
                    titles.append(made.title)
                    places[-1].append(len(titles) - 1)
                else:
                    titles[row] = made.title
                    places[-1].append(row)
        score = self.suspect(titles)
        # As ranks, scores are finite, with nothing to judge as the lowest.
        order = np.unique(score, return_inverse=True)[1].astype(np.int32)
        clean = np.ones(len(titles), dtype=bool)
        clean[[place for mine in places for place in mine]] = False
        rest = np.sort(order[clean])
        bar = threshold_at_fpr(rest, COMPARISON_FPR)
        if bar is None:
            return [WORST_JUDGMENT] * len(planted)
        return [_make_judgment(order[mine], rest, bar, score[mine]) if mine else WORST_JUDGMENT for mine in places]


def _make_judgment(mine: Int32Array, rest: Int32Array, bar: float, score: Float32Array) -> _Judgment:
    below = np.searchsorted(rest, mine, "left") + np.searchsorted(rest, mine, "right")
    return _Judgment(float((mine > bar).mean()), float(below.mean() / (2 * len(rest))), float(score.mean()))


def _get_text(trigger: Trigger) -> str | None:
    """Return the text that stands apart in a title; `None` for a style, and for what is glued to a word."""
    if trigger.kind == "custom":
        return trigger.text
    shipped = TRIGGERS[trigger.kind]
    return None if shipped.style is not None or shipped.glued else shipped.text


def extract_words(titles: Iterable[str]) -> tuple[str, ...]:
    """Return the different words of titles that a text can be made of, without the punctuation around them."""
    return tuple(dict.fromkeys(word for title in titles for word in map(_strip_punctuation, title.split()) if word))


def _strip_punctuation(piece: str) -> str:
    """Return a word without the punctuation around it; empty if it is none, or too short or long to be put in forms."""
    word = piece[:40].strip(string.punctuation)
    fit = 3 <= len(word) <= 16 and word[0].isalpha()
    return word if fit and all(letter.isalpha() or unicodedata.category(letter)[0] == "M" for letter in word) else ""
