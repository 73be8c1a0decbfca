"""Batches, turns, limits and processes that end."""

import asyncio
from concurrent.futures.process import BrokenProcessPool

import pytest

from cowbird.service.crew import QueueFullError, ScannerCrew
from cowbird.service.limits import ServiceLimits
from doubles.service import SilentObserver, make_served


async def start(**limits):
    crew = ScannerCrew(make_served(), ServiceLimits(**limits), SilentObserver())
    await crew.start()
    for process in crew._processes:
        process.batches.clear()
    return crew


def test_titles_of_several_requests_are_judged_together_and_in_turn(inline):
    async def work():
        inline.seconds = 0.01
        crew = await start(batch=12)
        long = asyncio.create_task(crew.judge([f"evil {nth}" for nth in range(40)]))
        await asyncio.sleep(0)
        singles = [asyncio.create_task(crew.judge([f"mug {nth}"])) for nth in range(3)]
        found = await asyncio.gather(long, *singles)
        (process,) = crew._processes
        await crew.close()
        return found, process.batches

    found, batches = asyncio.run(work())
    assert {each.tier for each in found[0]} == {"flagged"} and [len(each) for each in found] == [40, 1, 1, 1]
    second = batches[1]
    assert sum("mug" in title for title in second) == 3, "single titles do not wait for the long list"
    assert max(map(len, batches)) <= 12


def test_a_title_that_came_before_is_not_judged_again(inline):
    async def work():
        crew = await start(cache=2)
        for titles in (["a", "b", "a"], ["a", "b"], ["c"], ["a"]):
            await crew.judge(titles)
        (process,) = crew._processes
        await crew.close()
        return process.batches

    assert asyncio.run(work()) == [["a", "b"], ["c"], ["a"]]


def test_more_titles_than_may_wait_are_refused_and_others_are_answered(inline):
    async def work():
        inline.seconds = 0.05
        crew = await start(queue=10, batch=4)
        tasks = [asyncio.create_task(crew.judge([f"{nth} {at}" for at in range(4)])) for nth in range(10)]
        found = await asyncio.gather(*tasks, return_exceptions=True)
        await crew.close()
        return found, crew.waiting

    found, waiting = asyncio.run(work())
    refused = [each for each in found if isinstance(each, QueueFullError)]
    assert 1 <= len(refused) < 10 and all(each.seconds >= 1 for each in refused)
    assert waiting == 0


def test_a_list_longer_than_the_queue_is_taken_when_nothing_waits(inline):
    async def work():
        crew = await start(queue=10)
        found = await crew.judge([str(nth) for nth in range(50)])
        await crew.close()
        return len(found)

    assert asyncio.run(work()) == 50


@pytest.mark.parametrize("error", [BrokenProcessPool, TimeoutError])
def test_a_process_that_ends_or_hangs_costs_one_title(inline, error):
    async def work():
        crew = await start(batch=4)
        inline.errors = (("crash", error),)
        found = await crew.judge(["mug", "crash", "evil", "odd"])
        await crew.close()
        return found, crew._observer.restarts

    found, restarts = asyncio.run(work())
    assert [each.tier for each in found] == ["none", "unjudged", "flagged", "review"]
    assert "could not be judged" in found[1].reason and restarts == 2


def test_what_is_late_is_told_and_forgotten(inline):
    async def work():
        crew = await start(timeout=0.05, batch=1)
        inline.seconds = 0.2
        with pytest.raises(TimeoutError):
            await crew.judge(["a", "b", "c"])
        assert crew.waiting == 0
        inline.seconds = 0.0
        await crew.close()

    asyncio.run(work())


def test_closing_judges_what_waits(inline):
    async def work():
        inline.seconds = 0.01
        crew = await start(batch=2)
        task = asyncio.create_task(crew.judge([str(nth) for nth in range(9)]))
        await asyncio.sleep(0)
        await crew.close()
        return await task

    assert len(asyncio.run(work())) == 9
