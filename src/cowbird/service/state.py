"""A service at work: its scanner, its log, and what happens to the titles of a request.

Verdicts go into the log first. Only when they are on disk is the request answered. If the log can't be written, no
verdict is given.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from cowbird.errors import OutageError, UserError
from cowbird.service.access import AccessTokens, RateLimiter
from cowbird.service.audit import AuditLog
from cowbird.service.crew import QueueFullError, ScannerCrew, open_in_process
from cowbird.service.limits import ServiceLimits
from cowbird.service.requests import RefusedRequestError, UploadedTitles
from cowbird.service.scanners import ScannerSource, ServedScanner, TitleJudgment
from cowbird.service.telemetry import Telemetry

SECONDS_UNTIL_READY = 5.0
"""When to try again while the scanner is being opened."""


class LoggedVerdicts(NamedTuple):
    """Verdicts that are in the log."""

    found: list[TitleJudgment]
    """One a title, in order."""
    first: int
    """Number of the first one in the log; the others follow."""
    scanner: ServedScanner
    """What judged."""


class ServiceState:
    """What the requests of a service share.

    Args:
        source: How the scanner is named; a reload opens it anew.
        limits: What is taken on.
        tokens: Who may ask; `None` lets everybody.
        log: The log, open.
    """

    def __init__(
        self, source: ScannerSource, limits: ServiceLimits, tokens: AccessTokens | None, log: AuditLog
    ) -> None:
        self.source, self.limits, self.tokens, self.log = source, limits, tokens, log
        self.rates = RateLimiter(limits.rate, limits.burst)
        self.telemetry = Telemetry()
        self.crew: ScannerCrew | None = None
        self.failure: UserError | None = None
        """Why the first scanner could not be opened."""
        self.stopping = False
        self._reloading = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> bool:
        """Whether titles are judged and logged."""
        return self.crew is not None and self.crew.alive and not self.stopping and self.log.failure is None

    async def reload(self) -> ServedScanner:
        """Open the scanner anew and put it in the place of the one that judges; titles that wait are judged by that.

        Raises:
            UserError: If it can't be opened or does not judge; the old one goes on.
        """
        async with self._reloading:
            crew: ScannerCrew | None = None
            try:
                crew = ScannerCrew(await open_in_process(self.source), self.limits, self.telemetry)
                await crew.start()
                await self._log_event("scanner", crew.scanner)
            except UserError as error:
                self.telemetry.record_reload("refused")
                if crew is not None:
                    await crew.close()
                if self.crew is None:
                    self.failure = error
                else:
                    await asyncio.wrap_future(self.log.append([{"event": "refused", "reason": str(error)}]))
                raise
            before, self.crew = self.crew, crew
            self.telemetry.record_reload("done")
            self.telemetry.show_scanner(crew.scanner)
            if before is not None:
                task = asyncio.create_task(before.close())
                self._retiring.add(task)
                task.add_done_callback(self._retiring.discard)
            return crew.scanner

    async def _log_event(self, event: str, scanner: ServedScanner) -> None:
        told = {"event": event, "label": scanner.label, "sha256": scanner.sha256, "threshold": scanner.threshold}
        await asyncio.wrap_future(self.log.append([told | {"basis": scanner.basis}]))

    async def close(self) -> None:
        """Judge what waits, end the processes, and say so in the log."""
        self.stopping = True
        if self.crew is not None:
            await self.crew.close()
        await asyncio.gather(*self._retiring)
        await asyncio.wrap_future(self.log.append([{"event": "stopped"}]))

    async def judge(self, uploaded: UploadedTitles, client: str, request: str) -> LoggedVerdicts:
        """Judge titles and log the verdicts.

        Args:
            uploaded: The titles and their ids.
            client: Who asks.
            request: The request's id.

        Raises:
            RefusedRequestError: If there is no scanner yet, too much waits, it takes too long, or the log fails.
        """
        crew = self.crew
        if crew is None:
            raise self.refuse(503, "starting", "The scanner is being opened.", wait=SECONDS_UNTIL_READY)
        if wait := self.rates.take(client, len(uploaded.titles)):
            raise self.refuse(429, "rate", "This client sends titles faster than it may.", wait=wait)
        try:
            found = await crew.judge(uploaded.titles)
        except QueueFullError as error:
            raise self.refuse(503, "queue", "As many titles wait as may.", wait=error.seconds) from None
        except TimeoutError:
            raise self.refuse(503, "timeout", "The titles were not judged in time.", wait=SECONDS_UNTIL_READY) from None
        first = await self._log_verdicts(crew.scanner, uploaded, found, client, request)
        self.telemetry.record_verdicts(found)
        return LoggedVerdicts(found, first, crew.scanner)

    async def _log_verdicts(
        self,
        scanner: ServedScanner,
        uploaded: UploadedTitles,
        found: Sequence[TitleJudgment],
        client: str,
        request: str,
    ) -> int:
        seal = scanner.sha256
        records: list[dict[str, Any]] = [
            {"request": request, "client": client, "id": id_, "title": title, **each._asdict(), "scanner": seal}
            for title, id_, each in zip(uploaded.titles, uploaded.ids, found, strict=True)
        ]
        begun = time.perf_counter()
        try:
            first = await asyncio.wrap_future(self.log.append(records))
        except OutageError:
            raise self.refuse(503, "log", "Verdicts can't be logged, so none is given.", wait=30.0) from None
        self.telemetry.record_logging(time.perf_counter() - begun)
        return first

    def refuse(
        self, status: int, code: str, message: str, hint: str = "", wait: float | None = None
    ) -> RefusedRequestError:
        """Return an error for a request that can't be taken on, and count it."""
        self.telemetry.record_refusal(code)
        return RefusedRequestError(status, code, message, hint, wait)
