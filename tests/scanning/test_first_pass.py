"""The first pass of a ready scan: what is kept of it, and that going on ends as if it was never interrupted."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from cowbird.defenses.p_scanner import ready
from cowbird.defenses.p_scanner.catalog_judge import read_rounded
from cowbird.errors import ExitCode, UserError
from cowbird.scanning import detectors, first_pass
from cowbird.scanning.first_pass import NOTHING_KEPT, FirstPass
from cowbird.scanning.partial_folder import hold_output
from defenses.p_scanner.ready_doubles import ReadyDouble, make_titles
from doubles.command import call_command

TITLES = [*make_titles(180), *(f"{title} 5v" for title in make_titles(6, seed=1))]


@pytest.fixture
def catalog(tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_text("".join(json.dumps({"id": nth, "title": title}) + "\n" for nth, title in enumerate(TITLES)))
    return path


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(first_pass, "TITLES_PER_PART", 50)
    monkeypatch.setattr(first_pass, "ROWS_PER_REPORT", 20)


class Interrupting(ReadyDouble):
    """Is interrupted when it reads titles for the n-th time."""

    def __init__(self, nth=None):
        super().__init__()
        self.nth = nth

    def read(self, titles, report=lambda done, total, remark: None):
        if len(self.asked) + 1 == self.nth:
            raise KeyboardInterrupt
        return super().read(titles, report)


def same(found, wanted):
    assert np.array_equal(found.mark, wanted.mark)
    assert np.array_equal(found.verdict, wanted.verdict)
    for name in ("first", "after", "offsets"):
        assert np.array_equal(getattr(found.tokenized, name), getattr(wanted.tokenized, name))


@pytest.mark.slow
@pytest.mark.parametrize("nth", [1, 3, 4])
def test_an_interrupted_scan_goes_on_to_the_same_bytes(monkeypatch, capsys, catalog, tmp_path, nth):
    def scan(double, out):
        monkeypatch.setattr(ready.ReadyScanner, "load", lambda place="cpu", tagger="llm": double)
        return call_command(monkeypatch, capsys, "scan", catalog, "--out", tmp_path / out, "--device", "cpu")

    assert scan(Interrupting(), "whole.csv")[0] == ExitCode.FINDINGS
    code, _, err = scan(Interrupting(nth), "found.csv")
    assert code == ExitCode.INCOMPLETE
    assert "what was read is kept" in " ".join(err.split())
    assert (tmp_path / "found.csv.first-pass").is_dir()
    again = Interrupting()
    assert scan(again, "found.csv")[0] == ExitCode.FINDINGS
    assert len(again.asked) == 4 - (nth - 1), "parts that were kept are not read again"
    assert (tmp_path / "found.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.csv", "items.jsonl", "whole.csv"]


def test_rows_that_were_read_are_not_sampled_again(monkeypatch, catalog, tmp_path):
    kept, told = FirstPass(tmp_path / "found.csv"), []

    def interrupt(done, total, remark):
        told.append((done, remark))
        if done == 60:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept.sample(catalog, "title", interrupt)
    assert told[0][0] == 20
    assert told[-1] == (60, "60 titles kept")
    added = []
    monkeypatch.setattr(
        first_pass.TitleSample,
        "add",
        lambda self, titles, add=first_pass.TitleSample.add: added.append(titles) or add(self, titles),
    )
    found = kept.sample(catalog, "title")
    assert len(added[0]) == 60
    assert len(added) == 1 + len(TITLES) - 60
    added.clear()
    again = kept.sample(catalog, "title")
    assert len(added) == 1, "a sample that is whole is not made again"
    whole = NOTHING_KEPT.sample(catalog, "title")
    assert found.list_titles() == again.list_titles() == whole.list_titles()
    assert found.complete is again.complete is whole.complete is True


def test_another_catalogue_is_sampled_anew(catalog, tmp_path):
    kept = FirstPass(tmp_path / "found.csv")
    kept.sample(catalog, "title")
    catalog.write_text('{"title": "Another"}\n')
    assert kept.sample(catalog, "title").list_titles() == ["Another"]


@pytest.mark.parametrize("damage", [b"", b"{}", b"\x00" * 400, None])
def test_what_is_damaged_is_made_anew(catalog, tmp_path, damage):
    kept, double = FirstPass(tmp_path / "found.csv"), ReadyDouble()
    titles = kept.sample(catalog, "title").list_titles()
    wanted = kept.read(double, titles)
    same(wanted, read_rounded(ReadyDouble(), titles))
    files = sorted(kept.folder.iterdir())
    for path in files:
        path.write_bytes(path.read_bytes()[:-7] if damage is None else damage)
    double.asked.clear()
    assert kept.sample(catalog, "title").list_titles() == titles
    same(kept.read(double, titles), wanted)
    assert len(double.asked) == 4
    kept.clear()
    assert not kept.folder.exists()
    kept.clear()


def test_marks_of_another_scanner_are_not_taken(tmp_path):
    kept, other = FirstPass(tmp_path / "found.csv"), ReadyDouble(("River",))
    other.key = "another"
    kept.read(ReadyDouble(), TITLES)
    same(kept.read(other, TITLES), read_rounded(other, TITLES))


def test_nothing_stays_of_a_scan_that_can_only_fail_again(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(ready.ReadyScanner, "load", lambda place="cpu", tagger="llm": ReadyDouble())
    (tmp_path / "few.csv").write_text("title\n" + "\n".join(make_titles(30)))
    words = ("scan", tmp_path / "few.csv", "--out", tmp_path / "found.csv", "--device", "cpu")
    assert call_command(monkeypatch, capsys, *words)[0] == ExitCode.ERROR
    assert [path.name for path in tmp_path.iterdir()] == ["few.csv"]


def test_no_titles_give_no_marks():
    found = NOTHING_KEPT.read(ReadyDouble(), [])
    assert (len(found.mark), len(found.verdict), len(found.tokenized)) == (0, 0, 0)


def grow(catalog, title="A late title 5v"):
    with catalog.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"id": "late", "title": title}) + "\n")


def test_a_catalogue_that_changes_while_it_is_sampled_is_refused(catalog, tmp_path):
    """What was read is of neither catalogue, so nothing of it is taken for a whole sample."""
    kept = FirstPass(tmp_path / "found.csv")
    with pytest.raises(UserError, match=r"items\.jsonl was changed while it was read"):
        kept.sample(catalog, "title", lambda done, total, remark: grow(catalog) if done == 60 else None)
    assert not [path for path in kept.folder.glob("sample-*.json") if json.loads(path.read_text())["content"]["over"]]
    assert len(FirstPass(tmp_path / "found.csv").sample(catalog, "title")) == len(set(TITLES)) + 1


def test_a_catalogue_that_changes_before_it_is_counted_is_refused(catalog):
    kept = FirstPass()
    kept.sample(catalog, "title")
    grow(catalog)
    with pytest.raises(UserError, match="was changed while it was read"):
        kept.count(catalog, "title", ["5v"])


@pytest.mark.parametrize("out", ["found.csv", "found"])
def test_verdicts_rest_on_the_catalogue_that_is_judged(monkeypatch, capsys, catalog, tmp_path, out):
    """A catalogue that grows between what is learned and what is judged would mix two."""

    class Growing(ReadyDouble):
        def read(self, titles, report=lambda done, total, remark: None):
            if len(self.asked) == 2:
                grow(catalog)
            return super().read(titles, report)

    monkeypatch.setattr(ready.ReadyScanner, "load", lambda place="cpu", tagger="llm": Growing())
    code, _, err = call_command(monkeypatch, capsys, "scan", catalog, "--out", tmp_path / out, "--device", "cpu")
    assert code == ExitCode.ERROR
    assert "items.jsonl was changed while it was read." in " ".join(err.split())
    assert not (tmp_path / out).exists()
    assert not (tmp_path / f"{out}.partial" / "findings.jsonl").exists()
    assert not list(tmp_path.glob("*.partial/part-*"))


@pytest.mark.skipif(os.name != "posix", reason="no such locks")
@pytest.mark.parametrize("out", ["found.csv", "found"])
@pytest.mark.parametrize("more", [(), ("--detector", "character_rules")], ids=["ready", "detector"])
def test_a_second_scan_to_the_same_place_is_refused_before_it_loads(catalog, tmp_path, monkeypatch, capsys, out, more):
    def load(*_, **__):
        pytest.fail("the model was loaded")

    monkeypatch.setattr(ready.ReadyScanner, "load", load)
    monkeypatch.setattr(detectors, "open_detector", load)
    monkeypatch.chdir(tmp_path)  # a long path breaks lines
    words = ("scan", catalog, "--out", out, "--device", "cpu", "--quiet", *more)
    with hold_output(Path(out)):
        code, said, err = call_command(monkeypatch, capsys, *words)
        assert (code, said) == (ExitCode.ERROR, "")
        told = " ".join(err.split())
        assert f"Another scan to '{out}' is at work" in told and f"process {os.getpid()} on" in told
        assert "Wait for it, or choose another place for the findings: --out." in told
    assert [path.name for path in tmp_path.iterdir()] == ["items.jsonl"]


def test_rows_that_cannot_be_read_are_counted_once_over_an_interrupt(catalog, tmp_path):
    lines = catalog.read_text().splitlines()
    catalog.write_text("\n".join("{" if nth % 3 == 0 else line for nth, line in enumerate(lines)))

    def interrupt(done, total, remark):
        if done == 60:
            raise KeyboardInterrupt

    kept = FirstPass(tmp_path / "found.csv")
    with pytest.raises(KeyboardInterrupt):
        kept.sample(catalog, "title", interrupt)
    for nth in (1, 2):  # the second one finds all of it on file
        again = FirstPass(tmp_path / "found.csv")
        again.sample(catalog, "title")
        (found,) = again.unread[catalog]
        assert (found.count, found.rows) == (62, tuple(range(1, 31, 3))), nth
