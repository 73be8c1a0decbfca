"""Processes that judge the titles of all requests, in small batches.

The event loop hands out titles and never judges, so it stays responsive. A process that is free takes the titles that
wait, at most a batch: under little load a title is judged at once and alone, under much load many together. Requests
take turns, a few titles each, so that a long list does not keep single titles waiting.

A title on which the scanner fails, or on which a process ends twice, gets the tier `unjudged`; nothing else suffers.
"""

import asyncio
import gc
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any, NamedTuple, Protocol

from cowbird.errors import UserError
from cowbird.plugin_errors import copy_registry, guard_plugins, restore_registry
from cowbird.processes import end_with_parent, ignore_stop_signals
from cowbird.scanning.allow_list import AllowList
from cowbird.scanning.verdicts import Scorer
from cowbird.service.limits import ServiceLimits
from cowbird.service.scanners import (
    PROBE_TITLES,
    UNJUDGED_TIER,
    ScannerSource,
    ServedScanner,
    TitleJudgment,
    judge_titles,
    open_source,
)
from cowbird.text import escape_terminal

TITLES_PER_TURN = 8
"""Titles of a request that are judged before the next request has its turn."""
SECONDS_TO_START = 600.0
"""How long a process may take until it judges."""


class QueueFullError(Exception):
    """As many titles wait as may.

    Args:
        seconds: When to try again.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__("as many titles wait as may")
        self.seconds = seconds


class CrewObserver(Protocol):
    """Is told what a crew does, for metrics."""

    def record_batch(self, titles: int, seconds: float) -> None:
        """A process judged so many titles in so many seconds."""
        ...

    def record_restart(self) -> None:
        """A process ended before its time, and another one takes its place."""
        ...


@dataclass(eq=False)
class _Job:
    """The titles of a request that have to be judged."""

    titles: Sequence[str]
    done: "asyncio.Future[None]"
    taken: int = 0
    found: dict[str, TitleJudgment] = field(default_factory=dict[str, TitleJudgment])


class _Piece(NamedTuple):
    job: _Job
    titles: Sequence[str]


class ScannerCrew:
    """Processes that judge with one scanner.

    Args:
        scanner: The scanner.
        limits: Says how many processes, how large a batch, how many titles wait, and how long.
        observer: Told what the crew does.
    """

    def __init__(self, scanner: ServedScanner, limits: ServiceLimits, observer: CrewObserver) -> None:
        self.scanner = scanner
        self.waiting = 0
        """Titles that are neither judged nor at work."""
        self._limits, self._observer = limits, observer
        self._jobs: deque[_Job] = deque()
        self._work = asyncio.Event()
        self._closing = False
        self._cache: OrderedDict[str, TitleJudgment] = OrderedDict()
        self._processes = [_JudgeProcess(scanner) for _ in range(limits.workers)]
        self._loops: list[asyncio.Task[None]] = []
        self._seconds_per_title = 0.001

    async def start(self) -> None:
        """Start the processes, and see that each judges.

        Raises:
            UserError: If one does not.
        """
        try:
            told = await asyncio.gather(*(each.judge(PROBE_TITLES, SECONDS_TO_START) for each in self._processes))
            failed = [found.reason for each in told for found in each if found.tier == UNJUDGED_TIER]
            if failed:
                raise UserError(f"The scanner can't judge: {failed[0]}.", "Try it with cowbird scan.")
        except BaseException as error:
            await self.close()
            if isinstance(error, BrokenProcessPool | TimeoutError):
                raise UserError("A process that should judge ended or hung.", "Memory may have run out.") from None
            raise
        self._loops = [asyncio.create_task(self._run(each)) for each in self._processes]

    @property
    def alive(self) -> bool:
        """Whether it judges."""
        return bool(self._loops) and not any(each.done() for each in self._loops)

    async def close(self) -> None:
        """Judge what waits, then end the processes."""
        self._closing = True
        self._work.set()
        await asyncio.gather(*self._loops)
        await asyncio.gather(*(asyncio.to_thread(each.close) for each in self._processes))

    async def judge(self, titles: Sequence[str]) -> list[TitleJudgment]:
        """Judge titles, in order.

        Raises:
            QueueFullError: If too many wait; none of these is judged then.
            TimeoutError: If it takes too long.
        """
        known = {title: self._cache[title] for title in titles if title in self._cache}
        for title in known:
            self._cache.move_to_end(title)
        unknown = [title for title in dict.fromkeys(titles) if title not in known]
        if unknown:
            known |= await self._judge_unknown(unknown)
        return [known[title] for title in titles]

    async def _judge_unknown(self, titles: list[str]) -> Mapping[str, TitleJudgment]:
        if self.waiting and self.waiting + len(titles) > self._limits.queue:
            raise QueueFullError(max(1.0, self.waiting * self._seconds_per_title / len(self._processes)))
        job = _Job(titles, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self.waiting += len(titles)
        self._work.set()
        try:
            async with asyncio.timeout(self._limits.timeout):
                await job.done
        finally:
            if not job.done.done() or job.done.cancelled():
                self._drop(job)
        return job.found

    def _drop(self, job: _Job) -> None:
        """Forget what nobody waits for any more."""
        with suppress(ValueError):
            self._jobs.remove(job)
            self.waiting -= len(job.titles) - job.taken

    def _take_batch(self) -> list[_Piece]:
        """Take titles of several requests in turn."""
        pieces, room = list[_Piece](), self._limits.batch
        while room and self._jobs:
            job = self._jobs.popleft()
            part = job.titles[job.taken : job.taken + min(TITLES_PER_TURN, room)]
            job.taken += len(part)
            room -= len(part)
            pieces.append(_Piece(job, part))
            if job.taken < len(job.titles):
                self._jobs.append(job)
        self.waiting -= sum(len(piece.titles) for piece in pieces)
        return pieces

    async def _run(self, process: "_JudgeProcess") -> None:
        """Have one process judge what waits, until the crew ends and nothing waits."""
        clock = asyncio.get_running_loop().time
        while True:
            while not self._jobs:
                if self._closing:
                    return
                self._work.clear()
                await self._work.wait()
            pieces = self._take_batch()
            titles = list(dict.fromkeys(title for piece in pieces for title in piece.titles))
            begun = clock()
            found = dict(zip(titles, await self._judge_batch(process, titles), strict=True))
            seconds = clock() - begun
            self._seconds_per_title += 0.1 * (seconds / len(titles) - self._seconds_per_title)
            self._observer.record_batch(len(titles), seconds)
            self._keep(found)
            for job, part in pieces:
                job.found.update((title, found[title]) for title in part)
                if len(job.found) == len(job.titles) and not job.done.done():
                    job.done.set_result(None)

    async def _judge_batch(self, process: "_JudgeProcess", titles: Sequence[str]) -> list[TitleJudgment]:
        """Judge a batch; if the process ends or hangs on it, judge each title of it alone."""
        try:
            return await process.judge(titles, self._limits.timeout)
        except TimeoutError:
            reason = "the scanner took too long"
            await self._restart(process)
        except BrokenProcessPool:
            reason = "the process that judged it ended"
            await self._restart(process)
        except Exception as error:  # the scanner's own are told by the process
            reason = escape_terminal(f"{type(error).__name__}: {error}", 200)
        if len(titles) == 1:
            return [make_unjudged(reason)]
        return [found for title in titles for found in await self._judge_batch(process, [title])]

    async def _restart(self, process: "_JudgeProcess") -> None:
        self._observer.record_restart()
        await asyncio.to_thread(process.restart)

    def _keep(self, found: Mapping[str, TitleJudgment]) -> None:
        """Keep verdicts for when the titles come again."""
        for title, each in found.items():
            if each.tier != UNJUDGED_TIER:
                self._cache[title] = each
        while len(self._cache) > self._limits.cache:
            self._cache.popitem(last=False)


class _JudgeProcess:
    """One process that judges."""

    def __init__(self, scanner: ServedScanner) -> None:
        self._scanner = scanner
        self._pool = self._start()

    def _start(self) -> ProcessPoolExecutor:
        given = (self._scanner, copy_registry())
        return ProcessPoolExecutor(1, get_context("spawn"), _init_process, given)

    async def judge(self, titles: Sequence[str], seconds: float) -> list[TitleJudgment]:
        """Judge titles in the process.

        Raises:
            BrokenProcessPool: If it ends.
            TimeoutError: If it takes longer.
        """
        async with asyncio.timeout(seconds):
            return await asyncio.wrap_future(self._pool.submit(_judge, list(titles)))

    def restart(self) -> None:
        """End the process, whatever it does, and start another one."""
        _kill_workers(self._pool)
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = self._start()

    def close(self) -> None:
        """End the process once it has judged what it was given."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _kill_workers(pool: ProcessPoolExecutor) -> None:
    workers: dict[int, Any] = dict(getattr(pool, "_processes", None) or {})
    for worker in workers.values():
        with suppress(OSError, ValueError):
            worker.kill()


def make_unjudged(reason: str) -> TitleJudgment:
    """Return the verdict on a title that could not be judged."""
    return TitleJudgment(UNJUDGED_TIER, None, None, None, f"could not be judged: {reason}", None)


_process_judge: Callable[[Sequence[str]], list[TitleJudgment]] | None = None
"""What judges in this process."""


def _init_process(scanner: ServedScanner, known_plugins: Mapping[str, str]) -> None:
    """Make a process's scorer. Signals are for the process that serves, and this one ends with it.

    What a scorer holds stays until the end. The search for garbage would look through all of it while a title waits,
    for two thirds of a second, so it is told to leave that out.
    """
    global _process_judge  # noqa: PLW0603
    end_with_parent()
    ignore_stop_signals()
    restore_registry(known_plugins)
    with guard_plugins():
        scorer = scanner.make()
    _process_judge = BatchJudge(scorer, scanner.allow)
    _process_judge(PROBE_TITLES)  # what is made at the first title is then there, too
    gc.collect()
    gc.freeze()


class BatchJudge:
    """Judges batches; a title on which the scorer fails is told from the others."""

    def __init__(self, scorer: Scorer, allow: AllowList) -> None:
        self._scorer, self._allow = scorer, allow

    def __call__(self, titles: Sequence[str]) -> list[TitleJudgment]:
        """Judge titles; if the scorer fails, each alone."""
        try:
            with guard_plugins():
                return judge_titles(self._scorer, self._allow, titles)
        except Exception as error:
            if len(titles) == 1:
                return [make_unjudged(escape_terminal(f"{type(error).__name__}: {error}", 200))]
        return [found for title in titles for found in self([title])]


def _judge(titles: list[str]) -> list[TitleJudgment]:
    assert _process_judge is not None
    return _process_judge(titles)


async def open_in_process(source: ScannerSource) -> ServedScanner:
    """Open a scanner in a process of its own; see `open_source`.

    Raises:
        UserError: If it can't be opened.
    """
    with ProcessPoolExecutor(1, get_context("spawn"), _init_opener, (copy_registry(),)) as pool:
        try:
            return await asyncio.wrap_future(pool.submit(open_source, source))
        except BrokenProcessPool:
            raise UserError("The process that opened the scanner ended.", "Memory may have run out.") from None
        finally:
            _kill_workers(pool)


def _init_opener(known_plugins: Mapping[str, str]) -> None:
    end_with_parent()
    ignore_stop_signals()
    restore_registry(known_plugins)
