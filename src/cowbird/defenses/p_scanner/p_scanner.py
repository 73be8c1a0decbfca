"""P-Scanner (arXiv 2504.11182) as a defense: fitted to the very catalogue that it then judges, as a platform would."""

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from cowbird.defenses.p_scanner.rounds.common_patterns import judge_by_characters
from cowbird.defenses.p_scanner.rounds.poison_scanner import MIN_TITLES_PER_FIT, PoisonScanner
from cowbird.defenses.titles import Suspicion, TitleDefense
from cowbird.notices import NoticeRank, note
from cowbird.victims.base import Probe
from cowbird.victims.fit_context import FitContext, pick_device


class PScanner(TitleDefense):
    """Flag titles in which a tuned language model and the catalogue as a whole see a planted trigger (P-Scanner)."""

    needs_fit: ClassVar[bool] = True

    scanner: PoisonScanner = PoisonScanner()
    """How the scanner is fitted."""
    threshold: float | None = Field(default=0.0, allow_inf_nan=False)
    """Suspicion above which a title is flagged. Scores are counted from the scanner's own threshold, so 0 stands for
    its false-positive rate; `None` flags a share instead."""
    seed: int = 0
    """Decides all that is random in the fit."""

    def suspect(self, titles: Sequence[str], probe: Probe | None = None) -> Suspicion:
        """Fit a scanner to titles and judge them; see `TitleDefense.suspect`.

        Of fewer than `MIN_TITLES_PER_FIT` different titles nothing can be learned: rules for characters judge alone.

        Raises:
            UserError: If a model can't be used.
        """
        return self.make_adversary_copy(titles, self.seed)(titles)

    def make_adversary_copy(self, titles: Sequence[str], seed: int) -> Callable[[Sequence[str]], Suspicion]:
        """Fit a scanner to titles and return what judges others with it; see `TitleDefense.make_adversary_copy`.

        Raises:
            UserError: If a model can't be used.
        """
        if len({title for title in titles if title.strip()}) < MIN_TITLES_PER_FIT:
            text = (
                f"No scanner is fitted to fewer than {MIN_TITLES_PER_FIT} different titles: rules for characters judge."
            )
            note(NoticeRank.CHANGE, text)
            return lambda shown: judge_by_characters(shown)[0]
        fitted = self.scanner.fit(titles, seed, FitContext(pick_device(self.device)))
        bar = np.float32(fitted.threshold())

        def judge(titles: Sequence[str]) -> Suspicion:
            found = fitted.suspect(titles)
            return Suspicion(found.score - bar, found.start, found.end)

        return judge
