"""P-Scanner (arXiv 2504.11182): fitted to a catalogue, it judges titles, says where a trigger is, and knows its error.

`PoisonScanner` is the frozen description, `fit` returns a `FittedScanner`. Fitting goes in rounds: an agent proposes
triggers, told which earlier ones were caught; they are planted in titles that are taken for clean; a language model
learns to mark them; and the catalogue is read anew, which changes what is taken for clean. Thresholds come from titles
that were never learned from.

Departures. The paper's scanner judges one title by itself and is taught on a clean catalogue. This one marks tokens,
weighs them with what recurs in the catalogue (`ngram_scoring`), and takes the catalogue as it is, poisoned or not
(`clean_subset`).
"""

from cowbird.data.tables import read_texts
from cowbird.defenses.p_scanner.rounds.fitted_scanner import FittedScanner
from cowbird.defenses.p_scanner.rounds.scanner_fit import ScannerFit
from cowbird.defenses.p_scanner.rounds.scanner_spec import ScannerSpec
from cowbird.errors import UserError
from cowbird.victims.fit_context import FitContext, pick_device

MIN_TITLES_PER_FIT = 50
"""Different titles that a scanner can be fitted to."""


class PoisonScanner(ScannerSpec):
    """A scanner for planted triggers in titles."""

    def fit(
        self,
        titles: object,
        seed: int = 0,
        context: FitContext | None = None,
        *,
        text_column: str = "title",
        device: str = "cpu",
    ) -> FittedScanner:
        """Fit a scanner to a catalogue.

        Args:
            titles: The catalogue's, poisoned or not: a list, a polars or pandas series, or a frame. Missing and empty
                ones and repeats are not learned from.
            seed: Decides all that is random.
            context: Device, folder of what an interrupted fit goes on from, and progress.
            text_column: The column of titles, where `titles` is a frame.
            device: Where it is fitted, if there is no `context`: `auto`, `cpu`, `cuda` or `cuda:N`.

        Raises:
            UserError: If it is a single string or no table, there are too few titles, or a model can't be used.
            UnsetThresholdError: If the titles kept for it can set no threshold.
        """
        place = context or FitContext(pick_device(device))
        known = [title for title in dict.fromkeys(read_texts(titles, text_column)) if title and title.strip()]
        if len(known) < MIN_TITLES_PER_FIT:
            raise UserError(
                f"A scanner is fitted to {MIN_TITLES_PER_FIT} different titles or more, and there are {len(known)}.",
                "Give it a larger catalogue, or scan without a fit: cowbird scan CATALOG --out FINDINGS.",
            )
        fitted = ScannerFit(self, known, seed, place).run()
        if not (fitted.record.calibration.highest and fitted.record.alone.highest):
            held = fitted.record.calibration
            raise UnsetThresholdError(
                f"No threshold can be set: {held.titles + held.left_out:,} titles were kept for that. Of these "
                f"{held.left_out:,} look poisoned, and the others have nothing to judge.",
                "Give it a larger catalogue, or scan without a fit: cowbird scan CATALOG --out FINDINGS.",
            )
        return fitted


class UnsetThresholdError(UserError):
    """A scanner was fitted, and no title is left to set a threshold by; fitting again would end alike."""
