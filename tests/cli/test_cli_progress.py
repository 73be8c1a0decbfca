"""Progress in a log: lines at the beginning, when the phase changes, now and then, and at the end."""

import pytest

from cowbird.cli import progress


@pytest.fixture
def clock(monkeypatch):
    """Return a clock that stands still until it is set."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def lines(capsys):
    """Return what was printed since the last call, a line each."""

    def read():
        out, err = capsys.readouterr()
        assert out == ""
        return err.splitlines()

    return read


def test_lines_in_a_log(clock, lines):
    with progress.LineDisplay() as shown:
        task = shown.add_task("rows")
        for done in range(10):
            shown.update(task, done=done, total=100)
        assert lines() == ["[00:00] rows 0/100"], "one line at the beginning"
        clock[0] = 0.5
        shown.update(task, phase="titles", done=11)
        assert lines() == [], "phases that follow each other fast are one line"
        clock[0] = 1.5
        shown.update(task, phase="titles", done=12, note="3 flagged")
        assert lines() == ["[00:01] titles 12/100 (3 flagged)"]
        clock[0] = 10.0
        shown.update(task, done=50)
        assert lines() == []
        clock[0] = 80.0
        shown.update(task, done=60)
        assert lines() == ["[01:20] titles 60/100"]
        shown.update(task, done=100)
        assert lines() == []
    assert lines() == ["[01:20] titles 100/100"], "the end is told"
    shown.stop()
    assert lines() == [], "once"


def test_a_log_is_told_of_work_that_says_nothing(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.02)
    said = ""
    with progress.LineDisplay() as shown:
        shown.update(shown.add_task("loading"))
        for _ in range(500):
            said += capsys.readouterr().err
            if said.count("loading") > 2:
                break
            progress.time.sleep(0.02)
    assert said.count("loading") > 2


def test_several_tasks_and_hostile_text(clock, lines):
    with progress.LineDisplay() as shown:
        whole, fit = shown.add_task("cells"), shown.add_task("starting")
        shown.update(whole, done=0, total=2)
        clock[0] = 5.0
        shown.update(fit, phase="fit [red]\x1b[31m\u202e", done=3)
        shown.remove_task(fit)
        shown.update(whole, done=1, total=2)
    said = lines()
    assert said[0] == "[00:00] cells 0/2; starting"
    assert said[1].startswith("[00:05] cells 0/2; fit [red]")
    assert said[-1] == "[00:05] cells 1/2"
    assert not set("".join(said)) & set("\x1b\u202e")


@pytest.mark.parametrize("quiet", [True, False])
def test_what_is_chosen(quiet, monkeypatch):
    assert isinstance(progress.make_progress(quiet=True), progress.QuietDisplay)
    assert isinstance(progress.make_progress(), progress.LineDisplay), "no terminal here"
    monkeypatch.setattr(type(progress.err_console), "is_terminal", True)
    assert isinstance(progress.make_progress(quiet=quiet), progress.BarDisplay) == (not quiet)


def test_quiet_tells_warnings_alone(lines):
    with progress.QuietDisplay() as shown:
        shown.update(shown.add_task("rows"), done=1, total=2)
        shown.warn("a [red]title\x1b[31m")
        shown.remove_task(0)
    (said,) = lines()
    assert said.startswith("warning  a [red]title")
    assert "\x1b" not in said


def test_bars_on_a_terminal(monkeypatch, capsys):
    from rich.console import Console

    console = Console(stderr=True, force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(progress, "err_console", console)
    with progress.BarDisplay(left=True) as shown:
        task, other = shown.add_task("cells"), shown.add_task("starting")
        shown.update(task, phase="fit [red]", done=1, total=2, note="best 0.1")
        shown.remove_task(other)
    said = capsys.readouterr().err
    assert "fit [red]" in said
    assert "1/2" in said
    assert "best 0.1" in said
