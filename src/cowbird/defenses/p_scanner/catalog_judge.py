"""One catalogue under the ready scanner: its baseline, and verdicts on its titles in any order and in any pieces.

What the tagger says of the titles of the sample makes the baseline, and their verdicts are kept. A tagger that takes
contexts is shown some of the clean titles first (`read_catalog`), and reads all later titles behind the same ones. Its
log-odds are rounded, so that which titles are read beside each other does not show in a verdict.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple, Protocol, Self

import numpy as np

from cowbird.defenses.p_scanner.baseline import (
    DEFAULT_FPR,
    DEFAULT_REVIEW_FPR,
    MAX_TITLES_SAMPLED,
    Baseline,
    ReadyVerdicts,
    check_baseline,
)
from cowbird.defenses.p_scanner.column_evidence import TitleColumns
from cowbird.defenses.p_scanner.small_tagger import cut_batches, skip_logits
from cowbird.defenses.p_scanner.title_context import NO_CONTEXT, TitleContext
from cowbird.defenses.p_scanner.title_sample import TitleSample
from cowbird.defenses.p_scanner.title_traits import mark_words
from cowbird.defenses.p_scanner.token_logits import TokenLogits
from cowbird.defenses.p_scanner.whole_counts import PhraseCounts, WholeEvidence, find_suspicious_phrases
from cowbird.victims.fit_context import ProgressCallback, report_nothing

MARK_DECIMALS = 2
"""Decimals of the tagger's log-odds that count."""
MAX_VERDICTS_KEPT, MAX_LENGTH_KEPT = 1 << 16, 400
"""Verdicts on other titles that are kept in memory, for logs repeat titles; characters of a title whose verdict is."""
MAX_CHARACTERS_AT_ONCE = 1_000_000
"""Characters of titles that are judged at once: more do not run faster, and take more memory."""


class BaselineScanner(Protocol):
    """What learns baselines and judges titles by them: `ready.ReadyScanner`."""

    @property
    def key(self) -> str:
        """What the scanner is, its weights and its device included."""
        ...

    @property
    def shows_context(self) -> bool:
        """Whether its tagger reads titles behind a context."""
        ...

    def read(self, titles: Sequence[str], report: ProgressCallback = ..., context: TitleContext = ...) -> TokenLogits:
        """Return what the tagger says of titles behind a context."""
        ...

    def choose_context(self, titles: Sequence[str]) -> TitleContext:
        """Choose what is shown of titles that are taken for clean."""
        ...

    def choose_own_context(
        self, titles: Sequence[str], marks: TokenLogits, columns: TitleColumns | None = ...
    ) -> TitleContext:
        """Choose what is shown of titles that may be poisoned."""
        ...

    def learn_baseline(
        self,
        titles: Sequence[str],
        reference: Sequence[str] = ...,
        fpr: float = ...,
        review_fpr: float = ...,
        marks: TokenLogits | None = ...,
        *,
        columns: TitleColumns | None = ...,
        whole: WholeEvidence | None = ...,
        context: TitleContext = ...,
    ) -> Baseline:
        """Learn what is usual in a catalogue."""
        ...

    def judge(self, titles: Sequence[str], baseline: Baseline, marks: TokenLogits | None = ...) -> ReadyVerdicts:
        """Judge titles."""
        ...


class TitleVerdict(NamedTuple):
    """What the ready scanner makes of one title; fields as in `ReadyVerdicts`."""

    score: float
    start: int
    end: int
    flagged: bool
    review: bool
    reason: str
    sure: bool


class VerdictMemory:
    """Keeps verdicts on the titles that were judged last, `MAX_VERDICTS_KEPT` to twice as many."""

    def __init__(self) -> None:
        self._recent: dict[str, TitleVerdict] = {}
        self._older: dict[str, TitleVerdict] = {}

    def recall(self, titles: Sequence[str]) -> dict[str, TitleVerdict]:
        """Return the verdicts that are known."""
        recent, older = self._recent, self._older  # which another thread may replace
        return {title: told for title in titles if (told := recent.get(title) or older.get(title)) is not None}

    def keep(self, titles: Sequence[str], verdicts: Sequence[TitleVerdict]) -> None:
        """Keep verdicts."""
        short = ((title, told) for title, told in zip(titles, verdicts, strict=True) if len(title) <= MAX_LENGTH_KEPT)
        self._recent.update(short)
        if len(self._recent) >= MAX_VERDICTS_KEPT:
            self._recent, self._older = {}, self._recent


@dataclass(frozen=True, eq=False)
class CatalogJudge:
    """Judges the titles of one catalogue; a verdict depends on the title and the baseline alone."""

    find_scanner: Callable[[], BaselineScanner]
    """Gives the scanner, which is asked about titles that are not of the sample."""
    baseline: Baseline
    """What is usual in the catalogue, and the thresholds."""
    known: Mapping[str, TitleVerdict]
    """Verdicts on the titles of the sample."""
    memory: VerdictMemory = field(default_factory=VerdictMemory)
    """Verdicts on other titles."""

    @classmethod
    def learn(
        cls,
        scanner: BaselineScanner,
        titles: Sequence[str],
        reference: Sequence[str] = (),
        fpr: float = DEFAULT_FPR,
        review_fpr: float = DEFAULT_REVIEW_FPR,
        columns: TitleColumns | None = None,
        marks: TokenLogits | None = None,
        whole: WholeEvidence | None = None,
        context: TitleContext = NO_CONTEXT,
    ) -> Self:
        """Learn what is usual in a catalogue, and judge the titles that say so.

        Args:
            scanner: The scanner.
            titles: The catalogue's, or a sample of them; different ones.
            reference: Titles of the same source that are taken for clean, from before.
            fpr: Share of clean titles that may be flagged.
            review_fpr: Share of clean titles that may be flagged or put up for review.
            columns: Other columns of the titles, which explain what recurs; `None` for none.
            marks: What `read_rounded` returned for the reference and the titles, if they were read already.
            whole: What `look_at_whole` returned, if the titles are a sample.
            context: What they were read behind, if they were.

        Raises:
            UserError: If there are too few titles, or a rate is no share.
        """
        check_baseline(len(titles), len(reference), fpr, review_fpr)
        texts = [*reference, *titles]
        if marks is None:
            marks, context = read_catalog(scanner, titles, reference, columns=columns)
        baseline = scanner.learn_baseline(
            titles, reference, fpr, review_fpr, marks, columns=columns, whole=whole, context=context
        )
        verdicts = list_verdicts(texts, scanner.judge(texts, baseline, marks))
        known = dict(zip(titles, verdicts[len(reference) :], strict=True))
        return cls(lambda: scanner, baseline, known)

    def judge(self, titles: Sequence[str]) -> ReadyVerdicts:
        """Judge titles of the catalogue; those without any text get a score of -inf."""
        others = [title for title in dict.fromkeys(titles) if title not in self.known]
        fresh = self.memory.recall(others)
        if unknown := [title for title in others if title not in fresh]:
            scanner = self.find_scanner()
            for begin, end in cut_batches(unknown, len(unknown), MAX_CHARACTERS_AT_ONCE):
                part = unknown[begin:end]
                marks = read_rounded(scanner, part, context=self.baseline.context)
                found = scanner.judge(part, self.baseline, marks)
                verdicts = list_verdicts(part, found)
                fresh.update(zip(part, verdicts, strict=True))
                self.memory.keep(part, verdicts)
        return join_verdicts([fresh[title] if title in fresh else self.known[title] for title in titles])


class TitleReader(Protocol):
    """Has a scanner's tagger read titles: `read_rounded`, or `FirstPass.read`."""

    def __call__(
        self,
        scanner: BaselineScanner,
        titles: Sequence[str],
        report: ProgressCallback = ...,
        context: TitleContext = ...,
        /,
    ) -> TokenLogits:
        """Return what the tagger says of titles behind a context."""
        ...


class ReadCatalog(NamedTuple):
    """A catalogue that a tagger has read."""

    marks: TokenLogits
    """What the tagger says of the reference's titles and the catalogue's."""
    context: TitleContext
    """What they were read behind, and later ones are."""


def read_catalog(
    scanner: BaselineScanner,
    titles: Sequence[str],
    before: Sequence[str] = (),
    *,
    read: "TitleReader | None" = None,
    columns: TitleColumns | None = None,
    report: ProgressCallback = report_nothing,
) -> ReadCatalog:
    """Choose what is shown to the tagger, and have it read titles; without a reference they are read twice.

    A reference is taken for clean, so some of it is shown. Otherwise titles are read by themselves first. That says
    which of them may be shown, and all are read again behind those. A tagger that takes no context reads once.

    Args:
        scanner: The scanner.
        titles: The catalogue's, or a sample of them; different ones.
        before: Titles that are taken for clean, from before.
        read: Has the tagger read titles; `None` takes `read_rounded`.
        columns: Other columns of the titles, which explain what recurs; `None` for none.
        report: Told of titles read and all of them; those that are read twice count twice.
    """
    read = read or read_rounded
    texts, context = [*before, *titles], scanner.choose_context(before)
    if before or not scanner.shows_context:
        return ReadCatalog(read(scanner, texts, report, context), context)
    marks = read(scanner, texts, lambda done, total, remark: report(done, 2 * total, remark), NO_CONTEXT)
    context = scanner.choose_own_context(titles, marks, columns)
    if not context:
        report(len(texts), len(texts), "titles")
        return ReadCatalog(marks, context)
    again = read(scanner, texts, lambda done, total, remark: report(total + done, 2 * total, remark), context)
    return ReadCatalog(again, context)


def read_titles(
    scanner: BaselineScanner,
    titles: Sequence[str],
    report: ProgressCallback = report_nothing,
    context: TitleContext = NO_CONTEXT,
) -> TokenLogits:
    """Return what the tagger says of titles behind a context, which a scanner that shows none is not given."""
    shown = bool(context) and scanner.shows_context
    return scanner.read(titles, report, context) if shown else scanner.read(titles, report)


def read_rounded(
    scanner: BaselineScanner,
    titles: Sequence[str],
    report: ProgressCallback = report_nothing,
    context: TitleContext = NO_CONTEXT,
) -> TokenLogits:
    """Return what the tagger says of titles behind a context, in so many decimals as count."""
    marks = read_titles(scanner, titles, report, context)
    return replace(marks, mark=marks.mark.round(MARK_DECIMALS), verdict=marks.verdict.round(MARK_DECIMALS))


def judge_once(
    scanner: BaselineScanner,
    titles: Sequence[str],
    reference: Sequence[str],
    fpr: float,
    review_fpr: float,
    columns: TitleColumns | None = None,
) -> ReadyVerdicts:
    """Judge a catalogue that is in memory by what is usual in it; see `CatalogJudge.learn`."""
    return learn_from_all(scanner, titles, reference, fpr, review_fpr, columns).judge(titles)


def learn_from_all(
    scanner: BaselineScanner,
    titles: Sequence[str],
    reference: Sequence[str],
    fpr: float,
    review_fpr: float,
    columns: TitleColumns | None = None,
) -> CatalogJudge:
    """Learn what is usual in a catalogue that is in memory; see `CatalogJudge.learn`."""
    sample, before = draw_sample(titles), sample_titles(reference)
    chosen = sample.list_titles()
    check_baseline(len(chosen), len(before), fpr, review_fpr)
    marks, context = read_catalog(scanner, chosen, before, columns=columns)
    read = partial(read_rounded, context=context)
    whole = look_at_whole(scanner, sample, skip_logits(marks, len(before)), partial(count_phrases, titles), read)
    return CatalogJudge.learn(
        scanner, chosen, before, fpr, review_fpr, columns=columns, marks=marks, whole=whole, context=context
    )


def draw_sample(titles: Sequence[str]) -> TitleSample:
    """Return the sample of titles that stands for all."""
    sample = TitleSample(MAX_TITLES_SAMPLED)
    sample.add(titles)
    return sample


def sample_titles(titles: Sequence[str]) -> list[str]:
    """Return the different titles that stand for all; see `TitleSample`."""
    return draw_sample(titles).list_titles()


def look_at_whole(
    scanner: BaselineScanner,
    sample: TitleSample,
    marks: TokenLogits,
    count: Callable[[Sequence[str]], PhraseCounts],
    read: Callable[[BaselineScanner, Sequence[str]], TokenLogits] = read_rounded,
) -> WholeEvidence | None:
    """Count the suspicious phrases of a sample over the whole catalogue; `None` if the sample holds all titles.

    Args:
        scanner: The scanner.
        sample: The sample.
        marks: What `read_rounded` returned for it.
        count: Counts phrases over the whole catalogue.
        read: Has the tagger read titles, behind what those of the sample were read behind.
    """
    if sample.whole:
        return None
    titles = sample.list_titles()
    phrases = find_suspicious_phrases(mark_words(titles, marks))
    if not phrases:
        return None
    counts = count(phrases).finish(titles, sample.count_titles())
    return WholeEvidence(counts, read(scanner, counts.witnesses))


def count_phrases(titles: Iterable[str], phrases: Sequence[str]) -> PhraseCounts:
    """Count phrases in titles."""
    counts = PhraseCounts(phrases)
    counts.add(titles)
    return counts


def join_verdicts(found: Sequence[TitleVerdict]) -> ReadyVerdicts:
    """Return verdicts on titles as arrays."""
    return ReadyVerdicts(
        np.array([each.score for each in found], dtype=np.float32),
        np.array([each.start for each in found], dtype=np.int32),
        np.array([each.end for each in found], dtype=np.int32),
        np.array([each.flagged for each in found], dtype=np.bool_),
        np.array([each.review for each in found], dtype=np.bool_),
        [each.reason for each in found],
        np.array([each.sure for each in found], dtype=np.bool_),
    )


def list_verdicts(titles: Sequence[str], found: ReadyVerdicts) -> list[TitleVerdict]:
    """Return verdicts title by title."""
    rows = zip(
        *(part.tolist() for part in (found.score, found.start, found.end, found.flagged, found.review)),
        found.reason,
        found.sure.tolist(),
        strict=True,
    )
    nothing = TitleVerdict(-np.inf, -1, -1, False, False, "", False)
    return [TitleVerdict(*row) if title.strip() else nothing for title, row in zip(titles, rows, strict=True)]
