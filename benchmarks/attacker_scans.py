"""Scans of one catalogue with many different plantings, each text read and cut once; and detectors beside the scanner.

`PlantedCatalog` holds a reference, a batch and all texts that are planted in it; `shipped_scans.ShippedScans` judges
them by the package's own functions. `mute` takes a kind of evidence out of the scoring: the columns are set to what
they are on average. `list_simple_scores` has rules without a tagger.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from cowbird.data.types import Int64Array
from cowbird.defenses.character_rules import CharacterRules
from cowbird.defenses.p_scanner.catalog_judge import read_rounded
from cowbird.defenses.p_scanner.fragment_evidence import (
    FRAGMENT_FEATURES,
    FragmentEvidence,
    describe_fragments,
)
from cowbird.defenses.p_scanner.fragment_table import (
    count_fragments,
)
from cowbird.defenses.p_scanner.scoring import JOINED_FEATURES, ScoringModel, SmallNetwork
from cowbird.defenses.p_scanner.second_look import SecondLook
from cowbird.defenses.p_scanner.title_context import NO_CONTEXT
from cowbird.defenses.p_scanner.title_evidence import TITLE_FEATURES
from cowbird.defenses.p_scanner.token_logits import TokenLogits
from cowbird.defenses.strip import Strip
from ready_catalogs import KeptScanner
from shipped_scans import FPRS, Found, Scores, ShippedScans, describe_marks

MUTED: Mapping[str, tuple[str, ...]] = {
    "without context": ("different words before", "different words behind", "likeness of its titles"),
    "without drift": ("growth of its share", "growth of that"),
    "without rules": ("rarest rule", "rarest hard rule"),
}
"""Features that are taken out, by what is left."""


def mute_network(network: SmallNetwork, names: Sequence[str], muted: Sequence[str]) -> SmallNetwork:
    """Return a network that takes some features for average."""
    weight = network.weights[0].copy()
    weight[:, [nth for nth, name in enumerate(names) if name in muted]] = 0
    return replace(network, weights=(weight, *network.weights[1:]))


def mute(scoring: ScoringModel, muted: Sequence[str]) -> ScoringModel:
    """Return a scoring that takes some features for average."""
    return replace(
        scoring,
        title=mute_network(scoring.title, TITLE_FEATURES, muted),
        fragment=mute_network(scoring.fragment, FRAGMENT_FEATURES, muted),
        joined=mute_network(scoring.joined, JOINED_FEATURES, muted),
    )


@dataclass(eq=False)
class PlantedCatalog:
    """A reference, a batch and planted texts, each read once.

    Args:
        scanner: Reads them.
        reference: Clean titles from before.
        batch: Clean titles that are planted in.
        planted: Other texts that are asked about.
        second: What looks again at titles that their score leaves open; `None` for what the scanner has.
    """

    scanner: KeptScanner
    reference: Sequence[str]
    batch: Sequence[str]
    planted: Iterable[str]
    second: SecondLook | None = None

    def __post_init__(self) -> None:
        self.place: dict[str, int] = {}
        for text in (*self.reference, *self.batch, *self.planted):
            self.place.setdefault(text, len(self.place))
        self.texts = list(self.place)
        shown = self.scanner.choose_context(self.reference) if self.scanner.shows_context else NO_CONTEXT
        self.marks = read_rounded(self.scanner, self.texts, context=shown)
        """What the tagger says of all texts, behind titles of the reference if it takes a context."""
        self.scans = describe_marks(self.texts, self.marks, self.second or self.scanner.second)
        self.old = self.find(self.reference)

    def ask_itself(self, rows: Int64Array) -> Found:
        """Judge rows by what is usual among themselves.

        A tagger that takes a context is shown some of these very titles, so they are read anew.
        """
        if not self.scanner.shows_context:
            return self.scans.ask_itself(self.scanner.scoring, rows)
        found = self.scanner.scan_itself(self.list_texts(rows), FPRS)
        return Found(found.score, found.flagged, found.flagged | found.review)

    @cached_property
    def silent(self) -> ShippedScans:
        """The same with taggers that say nothing."""
        return self.scans.silence()

    def find(self, texts: Iterable[str]) -> Int64Array:
        """Return the rows of texts."""
        return np.array([self.place[text] for text in texts], dtype=np.int64)

    def list_texts(self, rows: Int64Array) -> list[str]:
        """Return the texts of rows."""
        return [self.texts[row] for row in rows.tolist()]

    @cached_property
    def known_fragments(self) -> Int64Array:
        """In how many titles of the reference each fragment stands."""
        return count_fragments(self.scans.table, self.old)

    def describe(self, rows: Int64Array, reference: bool) -> FragmentEvidence:
        """Return what fragments of rows are like."""
        return describe_fragments(
            self.scans.table, self.scans.traits, rows, (self.known_fragments, len(self.old)) if reference else None
        )

    def score_alone(self, reference: bool) -> Mapping[str, Scores]:
        """Return scores of all texts by detectors that judge each by itself: characters, the tagger, STRIP-like mixing.

        Args:
            reference: Whether the tagger is shown titles of the reference; it reads texts by themselves otherwise.
        """
        return self._alone_scores | {"tagger alone": self.marks.verdict if reference else self._own_marks.verdict}

    @cached_property
    def _own_marks(self) -> TokenLogits:
        return read_rounded(self.scanner, self.texts) if self.scanner.shows_context else self.marks

    @cached_property
    def _alone_scores(self) -> dict[str, Scores]:
        copies = 3
        strip = Strip(copies=copies)
        mixed = strip.mix_texts([text.strip() or "-" for text in self.texts])
        verdict = self.scanner.open_tagger().read(mixed).verdict.reshape(len(self.texts), copies)
        rules = CharacterRules().suspect(self.texts).score
        return {"character rules": rules, "STRIP-like, tagger's mean over mixed titles": verdict.mean(axis=1)}


def spread_to_titles(by_fragment: Scores, evidence: FragmentEvidence, titles: int) -> Scores:
    """Return the highest value among each title's fragments, shape `[titles]`."""
    score = np.full(titles, -1e9)
    np.maximum.at(score, evidence.title, by_fragment[evidence.of])
    return score


def list_simple_scores(evidence: FragmentEvidence, titles: int, reference: bool) -> dict[str, Scores]:
    """Return scores of titles by counts of fragments alone.

    Drift is the growth of a fragment's share in standard errors, context gain here how unlike the fragment's titles are
    beside it (no language model), and n-gram rules ask what recurs among different neighbors at one place.
    """
    column = {name: evidence.features[:, nth] for nth, name in enumerate(FRAGMENT_FEATURES)}
    count = np.exp(column["count"])
    some = count >= 3
    varied = (column["different words before"] + column["different words behind"]) / 2
    fixed = np.maximum(np.maximum(column["first"], column["between"]), column["last"])

    def spread(values: Scores) -> Scores:
        return spread_to_titles(np.where(some, values, -1e6), evidence, titles)

    found = {
        "n-gram rules alone": spread(np.log(count) * varied * fixed),
        "context alone": spread(-column["likeness of its titles"] + varied),
    }
    if reference:
        expected = count / np.exp(np.clip(column["growth of its share"], -8, 8))
        found["drift alone"] = spread((count - expected) / np.sqrt(expected + 1))
    return found
