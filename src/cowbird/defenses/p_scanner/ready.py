"""The ready scanner: judges the titles of any catalogue, without a fit.

One walk: the tagger that comes with the package marks every title (`tagger`), a language model behind some clean ones
of the same catalogue (`title_context`); a sample of the catalogue says
what is usual there (`title_evidence`) and which fragments recur (`fragment_evidence`); small networks make log-odds of
both (`scoring`); and thresholds come from titles of the same catalogue (`Baseline.thresholds`). Titles from before that
are taken for clean, a reference, make it sharper: they tell what is new, and no trigger among the scanned titles can
move what is usual.

A verdict depends on the title and the baseline alone, so a catalogue may be judged in any order and in pieces.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cowbird.data.types import Float32Array
from cowbird.defenses.p_scanner.baseline import (
    DEFAULT_FPR,
    DEFAULT_REVIEW_FPR,
    Baseline,
    ReadyVerdicts,
    check_baseline,
)
from cowbird.defenses.p_scanner.baseline_learning import (
    BaselineInputs,
    choose_shown_titles,
    find_members,
    learn_beside,
    learn_by_itself,
    score_rows,
    take_own_scores,
)
from cowbird.defenses.p_scanner.catalog_judge import judge_once, read_catalog, read_titles
from cowbird.defenses.p_scanner.column_evidence import TitleColumns, read_title_columns
from cowbird.defenses.p_scanner.inventory import Inventory, choose_batch_sizes, take_inventory
from cowbird.defenses.p_scanner.reference_role import ReferenceRole, choose_role
from cowbird.defenses.p_scanner.score_identity import hash_score_form
from cowbird.defenses.p_scanner.scoring import READY_SMALL_SCORING, ScoringModel, load_scoring
from cowbird.defenses.p_scanner.second_look import SecondLook, join_looks
from cowbird.defenses.p_scanner.slip_evidence import SlipFinder
from cowbird.defenses.p_scanner.small_tagger import (
    SMALL_RECORD_FILE,
    SmallTagger,
    TaggerName,
    TaggerSource,
    load_small_tagger,
)
from cowbird.defenses.p_scanner.spelling import Slip
from cowbird.defenses.p_scanner.tagger import READY_TAGGER, Tagger, load_tagger, read_tagger_record
from cowbird.defenses.p_scanner.title_context import NO_CONTEXT, TitleContext
from cowbird.defenses.p_scanner.title_explanations import ScoredTitles
from cowbird.defenses.p_scanner.title_index import (
    MAX_WORDS_NUMBERED,
    MAX_WORDS_REMEMBERED,
    index_catalog,
    index_titles,
)
from cowbird.defenses.p_scanner.title_slips import make_slip_reader
from cowbird.defenses.p_scanner.title_traits import describe_traits, mark_words
from cowbird.defenses.p_scanner.token_logits import TokenLogits
from cowbird.defenses.p_scanner.whole_counts import WholeEvidence, add_witnesses, describe_counts, number_counted
from cowbird.defenses.scan_table import scan_table
from cowbird.files import hash_texts
from cowbird.victims.fit_context import ProgressCallback, report_nothing
from cowbird.victims.language.llm import locate_model


@dataclass(eq=False)
class ReadyScanner:
    """A tagger and the scoring of its evidence; see the module."""

    tagger: Tagger | SmallTagger
    """Marks titles."""
    scoring: ScoringModel = field(default_factory=load_scoring)
    """Makes log-odds of evidence."""
    folder: Path | None = None
    """Where the tagger lies; `None` for one that comes with the package."""
    second: SecondLook | None = None
    """In a cascade, what looks again at titles that the score leaves open."""
    slips: SlipFinder | None = None
    """Says how a word of such titles may be meant: a plain language model; `None` for nothing."""

    @cached_property
    def identity(self) -> str:
        """All that makes a score: weights, constants and the form of the code; see `score_identity`."""
        networks = (self.scoring.title, self.scoring.fragment, self.scoring.joined)
        told = [part.tobytes().hex() for net in networks for part in (net.mean, net.scale, *net.weights, *net.biases)]
        again = [] if self.second is None else [self.second.identity]
        counts = (self.scoring.weighs_rare, self.scoring.weighs_shapes, self.scoring.weighs_beside)
        ways = repr((*counts, self.slips is not None, MAX_WORDS_NUMBERED, MAX_WORDS_REMEMBERED))
        return hash_texts([self.tagger.record.model_dump_json(), *told, hash_score_form(), ways, *again])

    @property
    def key(self) -> str:
        """What the scanner is, and on which kind of device."""
        return hash_texts([self.identity, self.tagger.device.type])

    @property
    def tagger_name(self) -> TaggerName:
        """Which of the taggers that come with the package it has, by its kind."""
        if self.second is not None:
            return "cascade"
        return "small" if isinstance(self.tagger, SmallTagger) else "llm"

    @property
    def tagger_source(self) -> TaggerSource:
        """Where its tagger is from, for other processes."""
        return self.tagger_name if self.folder is None else self.folder

    @staticmethod
    def load(device: str = "auto", tagger: TaggerSource = "llm", slips: bool = False) -> "ReadyScanner":
        """Load what comes with the package, or a tagger of one's own with the scoring of its kind.

        Args:
            device: Where the tagger runs: `auto`, `cpu`, `cuda` or `cuda:N`.
            tagger: `llm`, a language model; `small`, which finds less and is many times as fast; `cascade`, the small
                one, and the language model for the titles that its score leaves open; or the folder of a tagger that
                `cowbird train-scanner` wrote.
            slips: Whether the language model as it came, without the tagger's adapter, is asked how misspelled words
                are meant, of titles that the score leaves open. More triggers that change a word are found, and a scan
                takes half as long again or more. Not with `small`, which has no language model.

        Raises:
            UserError: If the language model can't be used, or the folder holds no tagger.
        """
        folder = tagger if isinstance(tagger, Path) else None
        if tagger == "cascade":
            record = read_tagger_record(READY_TAGGER)
            locate_model(record.llm.name)  # before any title is read
            second = SecondLook(lambda: load_tagger(device=device), record.model_dump_json(), record.takes_context)
            small = load_small_tagger(device=device)
            finder = make_slip_reader(record.llm, small.device) if slips else None
            return ReadyScanner(small, load_scoring(READY_SMALL_SCORING), second=second, slips=finder)
        if tagger == "small" or (folder is not None and (folder / SMALL_RECORD_FILE).exists()):
            small = load_small_tagger(device=device) if folder is None else load_small_tagger(folder, device)
            return ReadyScanner(small, load_scoring(READY_SMALL_SCORING), folder)
        large = load_tagger(device=device) if folder is None else load_tagger(folder, device)
        finder = make_slip_reader(large.record.llm, large.device) if slips else None
        return ReadyScanner(large, folder=folder, slips=finder)

    @property
    def shows_context(self) -> bool:
        """Whether its tagger is a language model that was taught to read titles behind a context."""
        return isinstance(self.tagger, Tagger) and self.tagger.takes_context

    def read(
        self,
        titles: Sequence[str],
        report: ProgressCallback = report_nothing,
        context: TitleContext = NO_CONTEXT,
    ) -> TokenLogits:
        """Return what the tagger says of titles; see `Tagger.read`. A tagger that takes no context reads without."""
        if isinstance(self.tagger, Tagger) and self.tagger.takes_context:
            return self.tagger.read(titles, context, report)
        return self.tagger.read(titles, report=report)

    def choose_context(self, titles: Sequence[str]) -> TitleContext:
        """Choose what is shown of titles that are taken for clean: to the tagger, or in a cascade to the second look.

        Nothing is shown if neither takes a context.
        """
        takes = self.shows_context or (self.second is not None and self.second.takes_context)
        return TitleContext.choose(titles) if takes else NO_CONTEXT

    def choose_own_context(
        self, titles: Sequence[str], marks: TokenLogits, columns: TitleColumns | None = None
    ) -> TitleContext:
        """Choose what is shown to the tagger of titles that may be poisoned; see `choose_shown_titles`.

        Args:
            titles: A catalogue's, or a sample of them; different ones.
            marks: What the tagger says of them without a context.
            columns: Other columns of the titles, which explain what recurs; `None` for none.
        """
        rows = np.arange(len(titles), dtype=np.int64)
        traits, table, found = index_catalog(titles, marks, titles, rows, columns)
        return choose_shown_titles(self.scoring, traits, table, rows, found)

    def learn_baseline(
        self,
        titles: Sequence[str],
        reference: Sequence[str] = (),
        fpr: float = DEFAULT_FPR,
        review_fpr: float = DEFAULT_REVIEW_FPR,
        marks: TokenLogits | None = None,
        report: ProgressCallback = report_nothing,
        columns: TitleColumns | None = None,
        whole: WholeEvidence | None = None,
        context: TitleContext = NO_CONTEXT,
    ) -> Baseline:
        """Learn what is usual in a catalogue.

        Args:
            titles: The catalogue's, or a sample of them, poisoned or not; different ones.
            reference: Titles of the same source that are taken for clean, from before.
            fpr: Share of clean titles that may be flagged.
            review_fpr: Share of clean titles that may be flagged or put up for review.
            marks: What the tagger says of `[*reference, *titles]`, if that is known.
            report: Told of titles read and all of them.
            columns: Other columns of the titles, which explain what recurs; `None` for none.
            whole: Phrases that were counted in the whole catalogue, if the titles are a sample of it.
            context: What the tagger read them behind, if the marks are known; see `read_catalog`.

        Raises:
            UserError: If there are too few titles, or a rate is no share.
        """
        before = len(reference)
        check_baseline(len(titles), before, fpr, review_fpr)
        if marks is None:
            marks, context = read_catalog(self, titles, reference, read=read_titles, columns=columns, report=report)
        texts, marks = add_witnesses([*reference, *titles], marks, whole)
        rows, fprs = before + np.arange(len(titles), dtype=np.int64), (fpr, max(fpr, review_fpr))
        traits, table, found = index_catalog(texts, marks, titles, rows, columns)
        counted = number_counted(table, before + len(titles), whole)
        told = [*found.describe(), *describe_counts(whole), *([context.key] if context else [])]
        key = hash_texts([repr((fpr, review_fpr, before)), *told, *texts])
        old, role = np.arange(before, dtype=np.int64), choose_role(before, len(titles))
        inputs = BaselineInputs(self.scoring, traits, table, rows, fprs, key, found, self.second, counted, self.slips)
        if role is ReferenceRole.TOO_SMALL:
            return learn_by_itself(inputs, context, old)
        sizes, second = ((len(titles),), self.second) if role is ReferenceRole.SETS_THRESHOLDS else ((), None)
        inventory = take_inventory(self.scoring, traits, table, old, sizes, second, self.slips, context)
        return learn_beside(inputs, inventory, role)

    def take_inventory(self, titles: Sequence[str], report: ProgressCallback = report_nothing) -> Inventory:
        """Count once what is usual among titles that are taken for clean, so that others may be judged by it.

        Args:
            titles: The titles; different ones.
            report: Told of titles read and all of them.

        Raises:
            UserError: If there are too few titles.
        """
        check_baseline(0, len(titles), DEFAULT_FPR, DEFAULT_REVIEW_FPR)
        marks, context = read_catalog(self, (), titles, report=report)
        traits, table = index_titles(titles, marks, most_words=MAX_WORDS_REMEMBERED)
        rows = np.arange(len(titles), dtype=np.int64)
        sizes = choose_batch_sizes(len(titles))
        return take_inventory(self.scoring, traits, table, rows, sizes, self.second, self.slips, context)

    def learn_beside(
        self,
        inventory: Inventory,
        titles: Sequence[str],
        fpr: float = DEFAULT_FPR,
        review_fpr: float = DEFAULT_REVIEW_FPR,
        marks: TokenLogits | None = None,
        columns: TitleColumns | None = None,
        whole: WholeEvidence | None = None,
    ) -> Baseline:
        """Learn what recurs among titles beside an inventory, and set thresholds for so many of them.

        Args:
            inventory: What is usual.
            titles: Those that are judged together; different ones, perhaps none.
            fpr: Share of clean titles that may be flagged.
            review_fpr: Share of clean titles that may be flagged or put up for review.
            marks: What the tagger says of them behind the inventory's context, if that is known.
            columns: Other columns of the titles, which explain what recurs; `None` for none.
            whole: Phrases that were counted in the whole catalogue, if the titles are a sample of it.

        Raises:
            UserError: If a rate is no share.
        """
        check_baseline(len(titles), inventory.size, fpr, review_fpr)
        marks = read_titles(self, titles, context=inventory.context) if marks is None else marks
        texts, marks = add_witnesses(titles, marks, whole)
        rows = np.arange(len(titles), dtype=np.int64)
        traits, table, found = index_catalog(texts, marks, titles, rows, columns)
        counted = number_counted(table, len(titles), whole)
        told = [*found.describe(), *describe_counts(whole)]
        key = hash_texts([repr((fpr, review_fpr)), inventory.key, *told, *texts])
        fprs = (fpr, max(fpr, review_fpr))
        inputs = BaselineInputs(self.scoring, traits, table, rows, fprs, key, found, self.second, counted, self.slips)
        return learn_beside(inputs, inventory, choose_role(inventory.size, len(titles)))

    def judge(
        self,
        titles: Sequence[str],
        baseline: Baseline,
        marks: TokenLogits | None = None,
        report: ProgressCallback = report_nothing,
    ) -> ReadyVerdicts:
        """Judge titles.

        Args:
            titles: Any texts.
            baseline: What is usual in their catalogue.
            marks: What the tagger says of them behind the baseline's context, if that is known.
            report: Told of titles read and all of them.
        """
        marks = read_titles(self, titles, report, baseline.context) if marks is None else marks
        traits = describe_traits(baseline.cleared.quiet(mark_words(titles, marks)))
        rows = np.arange(len(titles), dtype=np.int64)
        shared = baseline.index.find(traits.words.cut)
        score, worst, _, shapes = score_rows(self.scoring, baseline, traits, rows, shared)
        looks: Float32Array | None = None
        second = None if self.second is None else self.second.beside(baseline.context)
        if second is not None and baseline.band is not None:
            own = take_own_scores(baseline, score, worst)
            looks = second.look_where(titles, baseline.band.covers(own))
            score = join_looks(score, looks, baseline.band, own)
        slips = dict[int, Slip]()
        if self.slips is not None and baseline.slips is not None:
            known_rows = find_members(traits, rows, baseline)
            score, slips = baseline.slips.add(self.slips, titles, score, baseline.profile.words, known_rows)
        flagged = score > baseline.thresholds[0]
        review = (score > baseline.thresholds[1]) & ~flagged
        start, end = np.full(len(titles), -1, dtype=np.int32), np.full(len(titles), -1, dtype=np.int32)
        reason, sure = [""] * len(titles), np.zeros(len(titles), dtype=np.bool_)
        scored = ScoredTitles(baseline, traits, worst, shared, shapes, second, looks, slips)
        for row in np.flatnonzero(flagged | review).tolist():
            start[row], end[row], reason[row], sure[row] = scored.explain(row)
        return ReadyVerdicts(score, start, end, flagged, review, reason, sure)

    def scan(
        self,
        titles: object,
        text_column: str = "title",
        reference: Sequence[str] = (),
        fpr: float = DEFAULT_FPR,
        review_fpr: float = DEFAULT_REVIEW_FPR,
        explain_columns: Sequence[str] = (),
        seller_column: str | None = None,
    ) -> Any:
        """Judge the titles of a list, a polars or pandas series, or a frame, by what is usual among them.

        Args:
            titles: The titles. `None` stands for a missing one: its row is not judged, and stays.
            text_column: The column of titles, where it is a frame.
            reference: Titles of the same source that are taken for clean, from before.
            fpr: Share of clean titles that may be flagged.
            review_fpr: Share of clean titles that may be flagged or put up for review.
            explain_columns: Columns of the frame that explain what titles share, such as brand or language.
            seller_column: The column of sellers.

        Returns:
            One row a title, in order: what was given, then the columns of `scan_table`, `reason` among them.

        Raises:
            UserError: If it is a single string or no table, there are too few titles, or a rate is no share.
        """
        columns: TitleColumns | None = None
        if explain_columns or seller_column is not None:
            columns = read_title_columns(titles, text_column, explain_columns, seller_column)

        def judge(texts: Sequence[str]) -> ReadyVerdicts:
            return judge_once(self, texts, reference, fpr, review_fpr, columns)

        return scan_table(judge, titles, text_column)
