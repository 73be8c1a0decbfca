"""The scanner that comes with the package as a defense: it needs no fit, and what it flags is taken out.

The scanner itself is in `cowbird.defenses.p_scanner.ready`. It judges the catalogue as it came, by what is usual there;
or beside a calibration on the platform's titles of before (`cowbird calibrate`), which tells what is new.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from cowbird.defenses.p_scanner.baseline import DEFAULT_FPR, MIN_TITLES_PER_BASELINE
from cowbird.defenses.p_scanner.calibrated import load_calibrated_scanner
from cowbird.defenses.p_scanner.calibration_file import read_calibration
from cowbird.defenses.p_scanner.catalog_judge import learn_from_all
from cowbird.defenses.p_scanner.ready import ReadyScanner
from cowbird.defenses.p_scanner.rounds.common_patterns import judge_by_characters
from cowbird.defenses.p_scanner.small_tagger import TaggerName
from cowbird.defenses.titles import Suspicion, TitleDefense
from cowbird.notices import NoticeRank, note
from cowbird.victims.base import Probe
from cowbird.victims.fit_context import pick_device


class ReadyScannerDefense(TitleDefense):
    """Flag titles in which the scanner that comes with Cowbird sees a planted trigger; nothing is fitted."""

    needs_fit: ClassVar[bool] = True
    fit_hint: ClassVar[str] = "It is what cowbird scan takes by default: leave --detector out."

    fpr: float = Field(default=DEFAULT_FPR, gt=0, lt=1)
    """Share of clean titles that may be flagged."""
    tagger: TaggerName = "llm"
    """What reads titles: `llm`, a language model; `small`, a small network that finds less; `cascade`, the small one,
    and the language model for titles that it leaves open. A calibration has its own."""
    calibration: Path | None = Field(default=None, examples=["scanner.calibrated"])
    """A file that `cowbird calibrate` wrote, of the platform's titles from before; `None` knows none."""
    threshold: float | None = Field(default=0.0, allow_inf_nan=False)
    """Suspicion above which a title is flagged. Scores are counted from the scanner's own threshold, so 0 stands for
    its false-positive rate; `None` flags a share instead."""

    def suspect(self, titles: Sequence[str], probe: Probe | None = None) -> Suspicion:
        """Judge titles by what is usual among them; see `TitleDefense.suspect`.

        Of few different titles nothing is usual: without a calibration the rules for characters speak alone.

        Raises:
            UserError: If the calibration can't be read, or the language model or the device can't be used.
        """
        known = [title for title in titles if title.strip()]
        if self.calibration is None and len(set(known)) < MIN_TITLES_PER_BASELINE:
            few = f"fewer than {MIN_TITLES_PER_BASELINE} different titles"
            text = f"Nothing is usual in {few}: rules for characters judge."
            note(NoticeRank.CHANGE, text)
            return judge_by_characters(titles)[0]
        place = str(pick_device(self.device))
        if self.calibration is None:
            judge = learn_from_all(_load_scanner(place, self.tagger), known, (), self.fpr, self.fpr)
        else:
            scanner = _load_scanner(place, read_calibration(self.calibration)[0].tagger)
            judge = load_calibrated_scanner(self.calibration, scanner=scanner).learn_from_all(known, self.fpr, self.fpr)
        found, bar = judge.judge(titles), judge.baseline.thresholds[0]
        spans = (np.where(found.start >= 0, part, -1) for part in (found.start, found.end))
        return Suspicion(np.where(np.isfinite(bar), found.score - np.float32(bar), -np.inf), *spans)


@lru_cache(maxsize=2)
def _load_scanner(place: str, tagger: TaggerName) -> ReadyScanner:
    """Return the ready scanner; it is read once a process."""
    return ReadyScanner.load(place, tagger)
