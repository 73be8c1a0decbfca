"""Scans by several processes: the same findings, in order, and what goes wrong in a process is told."""

import json

import pytest

from cowbird.errors import UserError
from cowbird.scanning.pool import ScorerPool
from cowbird.scanning.scan import ScanForm, scan_catalog
from cowbird.scanning.verdicts import ConcurrentScorer
from doubles.scorers import Slow

pytestmark = pytest.mark.slow  # every crew is of processes of its own


@pytest.fixture(scope="module")
def crew():
    with ScorerPool(Slow(), Slow, 2) as made:
        yield made


def test_the_same_findings_as_of_one_process(crew, jsonl, tmp_path):
    assert isinstance(crew, ConcurrentScorer)
    assert not isinstance(Slow(), ConcurrentScorer)
    titles = ["first", "", *(f"Red {nth} xq" if nth % 3 else f"Blue {nth}" for nth in range(40)), "Blue 3"]
    catalog = jsonl(*({"title": title} for title in titles), b"not json")
    alone = scan_catalog(catalog, tmp_path / "alone.csv", Slow(), form=ScanForm(chunk=4))
    steps = []
    found = scan_catalog(
        catalog, tmp_path / "crew.csv", crew, form=ScanForm(chunk=4), report=lambda *step: steps.append(step[0])
    )
    assert (tmp_path / "crew.csv").read_bytes() == (tmp_path / "alone.csv").read_bytes()
    assert (found.rows, found.flagged, found.skipped) == (alone.rows, alone.flagged, alone.skipped)
    assert steps == [*range(4, 44, 4), 44], "chunks come in order"


def test_an_interrupted_scan_is_gone_on_with_by_any_number_of_processes(crew, jsonl, tmp_path):
    catalog = jsonl(*({"title": f"Red {nth} xq"} for nth in range(40)))

    def stop(done, *_):
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan_catalog(catalog, tmp_path / "a.jsonl", crew, form=ScanForm(chunk=4), report=stop)
    found = scan_catalog(catalog, tmp_path / "a.jsonl", Slow(), form=ScanForm(chunk=4))
    assert found.resumed == 12
    assert [json.loads(line)["row"] for line in (tmp_path / "a.jsonl").read_text().splitlines()] == [*range(1, 41)]


def test_what_a_process_refuses_is_an_error_for_people(crew, jsonl, tmp_path):
    with pytest.raises(UserError, match=r"It can't be judged. Try another."):
        scan_catalog(jsonl({"title": "refuse"}), tmp_path / "a.csv", crew)


def test_a_process_that_ends_is_told(jsonl, tmp_path):
    with ScorerPool(Slow(), Slow, 1) as crew:
        with pytest.raises(UserError, match="ended before its time") as error:
            scan_catalog(jsonl({"title": "leave"}), tmp_path / "a.csv", crew)
        assert "--workers 1" in error.value.hint
        with pytest.raises(UserError, match="ended before its time"):
            crew.begin(["more"])
    with pytest.raises(ValueError, match="at least one process"):
        ScorerPool(Slow(), Slow, 0)
