"""Scans into a folder of parts that are killed: the same command ends in the same bytes, wherever it was killed."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cowbird.local_cluster import InlineCluster
from cowbird.scanning import scan_parts, shared_first_pass
from cowbird.scanning.ready_scorer import open_ready_scanner
from cowbird.scanning.scan import ScanForm
from cowbird.scanning.scan_parts import scan_in_parts
from cowbird.scanning.shared_first_pass import SharedFirstPass
from defenses.p_scanner.ready_doubles import ReadyDouble, make_titles
from doubles.processes import clear_away, start_command, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc"),
]
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
"""What changes names in a file system, as Python tells of it before it is done."""


@pytest.fixture
def catalog(tmp_path, monkeypatch):
    """Four files of 60 rows; a sample of half of the titles, read in parts, and phrases that are counted in all."""
    monkeypatch.setattr("cowbird.scanning.first_pass.MAX_TITLES_SAMPLED", 120)
    monkeypatch.setattr("cowbird.scanning.first_pass.TITLES_PER_PART", 50)
    monkeypatch.setattr("cowbird.scanning.first_pass.SECONDS_BETWEEN_SAVES", 0.0)
    for module in (scan_parts, shared_first_pass):
        monkeypatch.setattr(module, "ROWS_PER_PART", 40)
    titles, place = make_titles(240, seed=3), tmp_path / "items"
    titles = [f"{title} 5v" if nth % 40 == 7 else title for nth, title in enumerate(titles)]
    titles[100] = ""
    place.mkdir()
    for nth in range(4):
        part = slice(60 * nth, 60 * nth + 60)
        pl.DataFrame({"id": range(240)[part], "title": titles[part]}).write_parquet(place / f"{nth}.parquet")
    return place


def scan(catalog, out):
    """Do what the command does."""
    kept = SharedFirstPass(out, InlineCluster())
    scorer = open_ready_scanner(ReadyDouble(), catalog, "cpu", kept=kept)
    scan_in_parts(catalog, out, scorer, form=ScanForm(chunk=16), file_rows=kept.file_rows.get(catalog, ()))
    kept.clear()


def scan_apart(catalog, out, most=sys.maxsize):
    """Scan in a process of its own, which is killed before so many changes; returns how many it made, -1 if killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        done = 0

        def watch(event, _):
            nonlocal done
            if event in CHANGES:
                if done >= most:
                    os.kill(os.getpid(), signal.SIGKILL)
                done += 1

        sys.addaudithook(watch)
        code = 1
        try:
            scan(catalog, out)
            os.write(writer, str(done).encode())
            code = 0
        except BaseException as error:  # not pytest's, which would go on in this process
            os.write(writer, repr(error).encode())
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        made = told.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), made
    return int(made) if status == 0 else -1


def read_bytes(out):
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.mark.parametrize(
    ("before", "step"),
    [
        ("nothing", 7),
        ("an older result", 11),
        pytest.param("nothing", 1, marks=pytest.mark.long),
        pytest.param("an older result", 3, marks=pytest.mark.long),
    ],
)
def test_a_kill_before_any_change_of_names_costs_no_byte(catalog, tmp_path, before, step):
    wanted_place = tmp_path / "wanted" / "found"
    wanted_place.parent.mkdir()
    changes = scan_apart(catalog, wanted_place)
    wanted = read_bytes(wanted_place)
    assert len(wanted) == 5, "four parts and a record"
    assert changes > 20
    killed = 0
    for most in range(0, changes, step):
        out = tmp_path / str(most) / "found"
        out.parent.mkdir()
        if before != "nothing":
            scan(catalog, out)
        killed += scan_apart(catalog, out, most) < 0
        if out.exists() and before != "nothing":
            assert read_bytes(out).items() >= wanted.items(), "an older result is whole, or a new one is"
        scan_apart(catalog, out)
        assert read_bytes(out) == wanted
        assert [path.name for path in out.parent.iterdir()] == ["found"], (
            most,
            list(Path(f"{out}.first-pass").rglob("*")),
        )
    assert killed >= changes // step - 1


@pytest.mark.long
def test_a_kill_of_the_command_with_workers_at_three_moments(tmp_path):
    draw = np.random.default_rng(2)
    words = [f"{a}{b}" for a in ("ba", "ke", "lo", "mi", "su") for b in ("ron", "dal", "vex", "pin", "gor")]
    rows = np.array(words)[draw.integers(0, len(words), (6000, 4))].tolist()
    titles = [f"{' '.join(row)} {nth}{' 5v' * (nth % 97 == 0)}" for nth, row in enumerate(rows)]
    place = tmp_path / "items"
    place.mkdir()
    for nth in range(6):
        part = slice(1000 * nth, 1000 * nth + 1000)
        pl.DataFrame({"id": range(6000)[part], "title": titles[part]}).write_parquet(place / f"{nth}.parquet")
    given = ("scan", place, "--tagger", "small", "--device", "cpu", "-q", "--workers", 2, "--out")
    whole = start_command(*given, tmp_path / "whole")
    assert "Traceback" not in whole.communicate(timeout=400)[0]
    assert whole.returncode == 1
    out, first = tmp_path / "found", tmp_path / "found.first-pass"
    moments = (
        lambda: any(first.glob("sample-*.json")),
        lambda: any(first.glob("part-*.safetensors")),
        lambda: any(Path(tmp_path / "found.partial").glob("part-*.json")),
    )
    for moment in moments:
        process = start_command(*given, out)
        wait_until(moment, process)
        os.kill(process.pid, signal.SIGKILL)
        clear_away(process)
        assert not out.exists()
    last = start_command(*given, out)
    assert "Traceback" not in last.communicate(timeout=400)[0]
    assert read_bytes(out) == read_bytes(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found", "items", "whole"]
