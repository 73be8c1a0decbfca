"""The folder of a run, which several processes may share: who writes what, and when.

A cell is run by whoever holds its lock (`cowbird.experiments.executor`). What is about the whole run, such as the spec,
the results and the notices, is written under the lock of the folder. It is held for a moment at a time, so everybody
else waits for it. Each process makes the results of all cells that are finished, whoever ran them; the last one to
write knows all.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cowbird.errors import OutageError, UserError
from cowbird.experiments.growth import bind_folder, check_bound
from cowbird.experiments.results import Row
from cowbird.experiments.results_file import ResultsFile
from cowbird.experiments.spec import Spec
from cowbird.files import sweep_partials, write_text
from cowbird.locks import lock_folder
from cowbird.notices import NOTICES_FILE, Notice, collect_notices, merge_notices, read_notices

SECONDS_FOR_OTHERS = 600.0
"""How long a process waits for another one that holds the folder; it does so for a moment at a time."""
RESULTS_SHARE = 0.01
"""Share of a run's time that making results may take before its end."""
SECONDS_BETWEEN_RESULTS = 60.0
"""How old the results may be that a process leaves as they are that has run one cell, while others are not done."""
LOCKED_HINT = "Wait until it ends, or end it; then go on with --resume. Or choose another folder with --out."


@dataclass
class RunFolder:
    """The folder of a run, as one process sees it."""

    spec: Spec
    """The experiment."""
    out: Path
    """The folder."""
    warn: Callable[[str], None]
    """Told of trouble that was worked around."""
    _next: float = 0.0
    """When results may be made again, by `time.monotonic`."""

    def lock(self) -> AbstractContextManager[None]:
        """Hold the folder while something is written that is about the whole run."""
        return lock_folder(self.out, "run", LOCKED_HINT, self.warn, SECONDS_FOR_OTHERS)

    def bind(self, resume: bool, deep: bool = True) -> None:
        """Bind the folder to the spec, and sweep what dead processes left.

        Args:
            resume: Whether it may hold a part of the run.
            deep: Whether the folders of all cells are swept, too.

        Raises:
            UserError: See `cowbird.experiments.growth.bind_folder`.
        """
        with self.lock():
            bind_folder(self.spec, self.out, resume)
            sweep_partials(self.out, deep=deep)

    def keep_notices(self, told: Sequence[Notice]) -> None:
        """Add notices to those of the run."""
        path = self.out / NOTICES_FILE
        known = read_notices(path)
        if merge_notices([known, told]) != known:
            with self.lock(), collect_notices(path) as kept:
                for notice in told:
                    kept.add(notice)

    def write_results(self, results: ResultsFile) -> None:
        """Write rows of single seeds on the way, if that takes no more than its share of the time."""
        began = time.monotonic()
        if began < self._next:
            return
        try:
            with self.lock():
                results.update()
                if self._is_ours():
                    results.write(pooled=False)
        except OutageError:
            pass  # the end of the run says so
        spent = time.monotonic() - began
        self._next = began + spent / RESULTS_SHARE

    def finish_results(self, results: ResultsFile, failed: list[str]) -> list[Row]:
        """Write the rows of all cells that are finished by now, and return them.

        A disk that does not take them costs no cell: the rows are made of kept evidence, and made again by `resume`.

        Args:
            results: Makes them.
            failed: Told of what the disk does not take.
        """
        try:
            with self.lock():
                results.update()
                if self._is_ours():
                    return results.write(pooled=True)
            self.warn("The run has grown since: its results are written by whoever runs the spec that it has now.")
        except OutageError as error:
            failed.append(f"{error} Run again with --resume; the rows are then made of what is kept.")
        return results.make_rows(pooled=True)

    def needs_results(self, left: int) -> bool:
        """Tell whether a process that has run one cell should make the results: at the end, and now and then.

        Args:
            left: Cells of the spec that are not done.
        """
        try:
            age = time.time() - (self.out / "results.jsonl").stat().st_mtime
        except OSError:
            return True
        return left == 0 or age > SECONDS_BETWEEN_RESULTS

    def write_circumstances(self, circumstances: Mapping[str, Any], failed: list[str]) -> None:
        """Write what may explain a difference between two runs; nothing in it enters the results."""
        try:
            with self.lock():
                write_text(self.out / "run.json", json.dumps(circumstances, indent=1))
        except OutageError as error:
            failed.append(str(error))

    def _is_ours(self) -> bool:
        """Tell whether the folder is bound to our spec, and not to what another process has let it grow to."""
        try:
            check_bound(self.spec, self.out)
        except UserError:
            return False
        return True
