"""Where the suite's processor time goes: the ten dearest files, and what workers need beside the tests.

It only tells; nothing fails by it. Processor time depends less than time on what else the machine does.
"""

import os
from collections import Counter

import pytest

TOLD = int(os.environ.get("TEST_COSTS", "10"))


def spend() -> float:
    """Processor seconds of this process so far, and of its children that have ended."""
    return sum(os.times()[:4])


class Costs:
    """Counts processor seconds by test file: in the process that runs tests, or from what workers report."""

    def __init__(self):
        self.of_files: Counter[str] = Counter()
        self.tests: Counter[str] = Counter()
        self.of_workers = 0.0
        self.start = 0.0

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self):
        self.start = spend()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self):
        report = yield
        report.spent, self.start = spend() - self.start, spend()  # travels from a worker with the report
        return report

    def pytest_runtest_logreport(self, report):
        file = report.nodeid.partition("::")[0]
        self.of_files[file] += getattr(report, "spent", 0.0)
        self.tests[file] += report.when == "call"

    def pytest_sessionfinish(self, session):
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["spent"] = spend()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        self.of_workers += getattr(node, "workeroutput", {}).get("spent", 0.0)

    def pytest_terminal_summary(self, terminalreporter):
        if sum(self.tests.values()) < TOLD:
            return
        in_tests = sum(self.of_files.values())
        whole = sum(os.times()[:2]) + self.of_workers if self.of_workers else spend()
        write = terminalreporter.write_line
        terminalreporter.section("processor seconds")
        write(f"{whole:7.1f} s in all; {whole - in_tests:.1f} s of them outside of tests (start, imports, collection)")
        for file, seconds in self.of_files.most_common(TOLD):
            write(f"{seconds:7.1f} s  {self.tests[file]:4d} tests  {file}")
