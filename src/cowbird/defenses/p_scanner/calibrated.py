"""The ready scanner, calibrated once on clean titles of one's own: what judges daily uploads, single ones too.

A `CalibratedScanner` is the scanner that comes with the package and an `Inventory` of one's own titles.
`calibration_file` says what its file holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cowbird.defenses.p_scanner.baseline import (
    DEFAULT_FPR,
    DEFAULT_REVIEW_FPR,
    Baseline,
    ReadyVerdicts,
    check_baseline,
)
from cowbird.defenses.p_scanner.calibration_file import (
    CALIBRATED_TAGGER,
    CalibrationRecord,
    describe_inventory,
    read_calibration,
    write_calibration,
)
from cowbird.defenses.p_scanner.catalog_judge import (
    CatalogJudge,
    count_phrases,
    draw_sample,
    join_verdicts,
    list_verdicts,
    look_at_whole,
    read_rounded,
    sample_titles,
)
from cowbird.defenses.p_scanner.column_evidence import TitleColumns
from cowbird.defenses.p_scanner.inventory import Inventory
from cowbird.defenses.p_scanner.ready import ReadyScanner
from cowbird.defenses.p_scanner.token_logits import TokenLogits
from cowbird.defenses.p_scanner.whole_counts import WholeEvidence
from cowbird.defenses.scan_table import scan_table
from cowbird.errors import UserError
from cowbird.files import hash_texts
from cowbird.text import replace_surrogates
from cowbird.victims.fit_context import ProgressCallback, report_nothing


@dataclass(eq=False)
class CalibratedScanner:
    """The ready scanner beside clean titles of one's own."""

    scanner: ReadyScanner
    """Reads titles, and scores evidence."""
    inventory: Inventory
    """What is usual among the clean titles, and how such titles score."""
    record: CalibrationRecord
    """What the file says."""

    @classmethod
    def calibrate(
        cls,
        scanner: ReadyScanner,
        titles: Sequence[str],
        fpr: float = DEFAULT_FPR,
        review_fpr: float = DEFAULT_REVIEW_FPR,
        report: ProgressCallback = report_nothing,
    ) -> "CalibratedScanner":
        """Calibrate on titles that are taken for clean.

        Args:
            scanner: The ready scanner.
            titles: Titles of the source whose uploads will be judged; of very many a sample is taken.
            fpr: Share of clean titles that may be flagged.
            review_fpr: Share of clean titles that may be flagged or put up for review.
            report: Told of titles read and all of them.

        Raises:
            UserError: If there are too few different titles, or a rate is no share.
        """
        sample = sample_titles([title for title in titles if title.strip()])
        check_baseline(0, len(sample), fpr, review_fpr)
        inventory = scanner.take_inventory(sample, report)
        titles_sha256 = hash_texts(sorted(map(replace_surrogates, sample)))
        record = describe_inventory(inventory, scanner.identity, scanner.tagger_name, titles_sha256, (fpr, review_fpr))
        return cls(scanner, inventory, record)

    @property
    def key(self) -> str:
        """What the scanner is, the clean titles included: the same key, the same verdicts on one device."""
        return hash_texts([self.scanner.key, self.inventory.key, repr((self.record.fpr, self.record.review_fpr))])

    def learn_baseline(
        self, titles: Sequence[str] = (), fpr: float | None = None, review_fpr: float | None = None
    ) -> Baseline:
        """Return the baseline for titles that are judged together; without any, for single ones.

        Args:
            titles: The titles; different ones.
            fpr: Share of clean titles that may be flagged; the calibration's own by default.
            review_fpr: Share that may be flagged or put up for review; likewise.

        Raises:
            UserError: If a rate is no share.
        """
        rates = self._choose_rates(fpr, review_fpr)
        return self.scanner.learn_beside(self.inventory, titles, *rates, marks=self.read(titles))

    def read(self, titles: Sequence[str]) -> TokenLogits:
        """Return what the tagger says of titles behind the calibration's context, in so many decimals as count."""
        return read_rounded(self.scanner, titles, context=self.inventory.context)

    def _choose_rates(self, fpr: float | None, review_fpr: float | None) -> tuple[float, float]:
        """Return rates, the calibration's own where none is given."""
        return self.record.fpr if fpr is None else fpr, self.record.review_fpr if review_fpr is None else review_fpr

    def judge_apart(
        self, titles: Sequence[str], fpr: float | None = None, review_fpr: float | None = None
    ) -> ReadyVerdicts:
        """Judge titles, each as if it were uploaded alone: a verdict depends on the title and the calibration.

        Titles are any texts; rates as in `learn_baseline`.

        Raises:
            UserError: If a rate is no share.
        """
        baseline = self.learn_baseline((), fpr, review_fpr)
        found = self.scanner.judge(titles, baseline, self.read(titles))
        return join_verdicts(list_verdicts(titles, found))

    def judge_titles(
        self, titles: Sequence[str], fpr: float | None = None, review_fpr: float | None = None
    ) -> ReadyVerdicts:
        """Judge titles among each other: what recurs among them and is new beside the calibration counts, too.

        Arguments as in `judge_apart`.

        Raises:
            UserError: If a rate is no share.
        """
        return self.learn_from_all(titles, fpr, review_fpr).judge(titles)

    def learn_from_all(
        self, titles: Sequence[str], fpr: float | None = None, review_fpr: float | None = None
    ) -> CatalogJudge:
        """Return what judges the titles of a catalogue that is in memory; see `make_judge`."""
        sample = draw_sample(titles)
        chosen = sample.list_titles()
        marks, read = self.read(chosen), partial(read_rounded, context=self.inventory.context)
        whole = look_at_whole(self.scanner, sample, marks, partial(count_phrases, titles), read)
        return self.make_judge(chosen, fpr, review_fpr, marks=marks, whole=whole)

    def make_judge(
        self,
        sample: Sequence[str],
        fpr: float | None = None,
        review_fpr: float | None = None,
        columns: TitleColumns | None = None,
        marks: TokenLogits | None = None,
        whole: WholeEvidence | None = None,
    ) -> CatalogJudge:
        """Return what judges the titles of a catalogue beside the calibration.

        Args:
            sample: The catalogue's titles, or a sample of them; different ones, none empty.
            fpr: Share of clean titles that may be flagged; the calibration's own by default.
            review_fpr: Share that may be flagged or put up for review; likewise.
            columns: Other columns of the titles, which explain what recurs; `None` for none.
            marks: What `read` returned for the sample, if it was read already.
            whole: What `look_at_whole` returned for it.

        Raises:
            UserError: If a rate is no share.
        """
        rates = self._choose_rates(fpr, review_fpr)
        marks = self.read(sample) if marks is None else marks
        baseline = self.scanner.learn_beside(self.inventory, sample, *rates, marks=marks, columns=columns, whole=whole)
        known = dict(zip(sample, list_verdicts(sample, self.scanner.judge(sample, baseline, marks)), strict=True))
        return CatalogJudge(lambda: self.scanner, baseline, known)

    def scan(
        self, titles: object, text_column: str = "title", fpr: float | None = None, review_fpr: float | None = None
    ) -> Any:
        """Judge the titles of a list, a polars or pandas series, or a frame, among each other; see `judge_titles`.

        Args:
            titles: The titles. `None` stands for a missing one: its row is not judged, and stays.
            text_column: The column of titles, where it is a frame.
            fpr: Share of clean titles that may be flagged; the calibration's own by default.
            review_fpr: Share that may be flagged or put up for review; likewise.

        Returns:
            One row a title, in order: what was given, then the columns of `scan_table`, `reason` among them.

        Raises:
            UserError: If it is a single string or no table, or a rate is no share.
        """
        return scan_table(lambda texts: self.judge_titles(texts, fpr, review_fpr), titles, text_column)

    def save(self, path: Path) -> str:
        """Write the calibration, and return the file's hash; see `calibration_file`.

        Raises:
            UserError: If it can't be written.
        """
        return write_calibration(path, self.record, self.inventory)


def load_calibrated_scanner(path: Path, device: str = "cpu", scanner: ReadyScanner | None = None) -> CalibratedScanner:
    """Read what `CalibratedScanner.save` wrote.

    Args:
        path: The file, or the folder that `cowbird fit-scanner` wrote.
        device: Where the tagger runs: `auto`, `cpu`, `cuda` or `cuda:N`.
        scanner: The ready scanner, if it is loaded already.

    Raises:
        UserError: If the file does not hold a calibration, one of another version or of another scanner, or a damaged
            one; or if the language model can't be used.
    """
    record, inventory = read_calibration(path)
    if scanner is None:
        own = path / CALIBRATED_TAGGER
        scanner = ReadyScanner.load(device, own if own.is_dir() else record.tagger)
    if record.scanner != scanner.identity:
        raise UserError(
            f"'{path}' was calibrated with another version of the ready scanner, which scored titles otherwise. So its "
            "thresholds do not hold here.",
            _hint_at_calibration(path, record),
        )
    return CalibratedScanner(scanner, inventory, record)


def _hint_at_calibration(path: Path, record: CalibrationRecord) -> str:
    """Return what makes a calibration anew."""
    if path.is_dir():
        return f"Make it anew: cowbird fit-scanner CATALOG --out {path}."
    return f"Make it anew: cowbird calibrate CATALOG --tagger {record.tagger} --fpr {record.fpr:g} --out {path}."
