"""Scans into a folder of parts: the verdicts of one process, whoever reads and judges, and whatever dies meanwhile."""

import json
import os
import signal
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cowbird.defenses.p_scanner.ready import ReadyScanner
from cowbird.defenses.p_scanner.whole_counts import MAX_WITNESSES
from cowbird.errors import OutageError, UserError
from cowbird.ingest import sections
from cowbird.ingest.places import fingerprint
from cowbird.local_cluster import InlineCluster, LocalCluster
from cowbird.ray_cluster import join_cluster
from cowbird.scanning import scan_parts, shared_first_pass
from cowbird.scanning.findings_file import read_reviewed
from cowbird.scanning.first_pass import FirstPass
from cowbird.scanning.parts_folder import SCAN_FILE, list_finding_files
from cowbird.scanning.reading import open_catalog
from cowbird.scanning.ready_scorer import open_ready_scanner
from cowbird.scanning.scan import ScanForm, scan_catalog
from cowbird.scanning.scan_parts import scan_in_parts
from cowbird.scanning.shared_first_pass import SharedFirstPass, count_own_files
from cowbird.scanning.verdicts import FlaggedSuspicion
from defenses.p_scanner.ready_doubles import ReadyDouble
from doubles.command import call_command


class MarkScorer:
    """Flags titles with an exclamation mark, and notes how many titles it saw at a time."""

    key = "marks"

    def __init__(self):
        self.asked = []

    def scan(self, titles):
        self.asked.append(len(titles))
        start = np.array([title.find("!") for title in titles])
        found = start >= 0
        return FlaggedSuspicion(np.where(found, 1.0, 0.0), start, np.where(found, start + 1, -1), found)


class DyingScorer(MarkScorer):
    """Kills its process at a title, unless a file says that this was done."""

    def __init__(self, mark):
        super().__init__()
        self.mark = mark

    def scan(self, titles):
        if "a 150" in titles and not Path(self.mark).exists():
            Path(self.mark).write_text("killed")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().scan(titles)


def make_dying(mark):
    return DyingScorer(mark)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    for module in (scan_parts, shared_first_pass):
        monkeypatch.setattr(module, "ROWS_PER_PART", 40)


@pytest.fixture
def catalog(tmp_path):
    """300 rows of which some are flagged, some have no title and one can't be read."""
    path = tmp_path / "items.csv"
    lines = [f"{n},a {n}{'!' * (n % 7 == 2)}\n" for n in range(300)]
    lines[20], lines[60], lines[61] = "20,\n", "60,NULL\n", "61,NULL\n"
    path.write_bytes(b"id,title\n" + "".join(lines).encode().replace(b"a 99", b"a\xff99"))
    return path


@pytest.fixture
def folder(tmp_path):
    """The same in six files of Parquet, one of them empty, in folders that name a country."""
    place = tmp_path / "items"
    frame = pl.DataFrame({"id": range(300), "title": [f"a {n}{'!' * (n % 7 == 2)}" for n in range(300)]})
    for nth, (first, size) in enumerate([(0, 70), (70, 1), (71, 0), (71, 129), (200, 50), (250, 50)]):
        path = place / f"country={'DE' if nth < 3 else 'FR'}" / f"{nth}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.slice(first, size).write_parquet(path)
    return place


def scan_once(catalog, tmp_path, **options):
    out = tmp_path / "one.parquet"
    found = scan_catalog(catalog, out, MarkScorer(), form=ScanForm(chunk=16, **options))
    return found, pl.read_parquet(out)


def read_parts(out):
    return pl.concat([pl.read_parquet(path) for path in list_finding_files(out)])


def compare(found, wanted):
    """Compare all that a summary says but for time and place."""
    for name in ("rows", "empty", "flagged", "review", "allowed", "unread", "fragments", "ids", "judged"):
        assert getattr(found, name) == getattr(wanted, name), name
    assert [each.title for each in found.worst] == [each.title for each in wanted.worst]
    assert sorted(found.notes) == sorted(wanted.notes)


@pytest.mark.parametrize("only_flagged", [False, True])
def test_parts_are_the_findings_of_one_process(catalog, tmp_path, only_flagged):
    scorer, out = MarkScorer(), tmp_path / "found"
    found = scan_in_parts(catalog, out, scorer, form=ScanForm(chunk=16, only_flagged=only_flagged))
    wanted, table = scan_once(catalog, tmp_path, only_flagged=only_flagged)
    assert read_parts(out).equals(table)
    compare(found, wanted)
    assert (found.flagged, found.skipped, found.empty) == (43, 1, 3)
    assert max(scorer.asked) == 16, "chunks are those of one process"
    record = json.loads((out / SCAN_FILE).read_text())["content"]
    assert [part["rows"] for part in record["parts"]] == [48] * 6 + [12]
    assert record["parts"][-1]["first_row"] == 289
    assert (out / "skipped.csv").read_text().splitlines()[1].startswith("100,")
    assert {path.suffix for path in out.iterdir()} == {".parquet", ".json", ".csv"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "found", "items.csv", "one.parquet", "one.parquet.skipped.csv",
    ]  # fmt: skip


def test_workers_read_the_files_of_a_folder(folder, tmp_path):
    rows = (70, 1, 0, 129, 50, 50)
    found = scan_in_parts(folder, tmp_path / "found", MarkScorer(), form=ScanForm(chunk=16), file_rows=rows)
    wanted, table = scan_once(folder, tmp_path)
    assert read_parts(tmp_path / "found").equals(table)
    compare(found, wanted)
    assert len(list_finding_files(tmp_path / "found")) == 6
    with pytest.raises(UserError, match="was changed"):
        scan_in_parts(folder, tmp_path / "other", MarkScorer(), file_rows=(70, 1, 0, 128, 50, 50))


def test_a_catalogue_that_changes_meanwhile_leaves_nothing(catalog, tmp_path):
    """Parts of what it was before must not go on beside others, even if it is put back as it was."""
    seal = fingerprint(catalog)

    def grow(*_):
        catalog.write_bytes(catalog.read_bytes() + b"300,late!\n")

    with pytest.raises(UserError, match="was changed while it was read"):
        scan_in_parts(catalog, tmp_path / "found", MarkScorer(), form=ScanForm(chunk=16), report=grow)
    with pytest.raises(UserError, match="was changed while it was read"):
        scan_in_parts(catalog, tmp_path / "found", MarkScorer(), form=ScanForm(chunk=16), seal=seal)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["items.csv"]
    assert scan_in_parts(catalog, tmp_path / "found", MarkScorer(), form=ScanForm(chunk=16)).resumed == 0


class Stopped(MarkScorer):
    """Is interrupted at one title."""

    def scan(self, titles):
        if "a 200" in titles:
            raise KeyboardInterrupt
        return super().scan(titles)


def test_workers_read_the_sections_of_a_text_file(catalog, tmp_path, monkeypatch):
    monkeypatch.setattr(sections, "SECTION_BYTES", 400)
    kept = SharedFirstPass(None, InlineCluster())
    sample = kept.sample(catalog, "title")
    assert sample.list_titles() == FirstPass().sample(catalog, "title").list_titles()
    rows = kept.file_rows[catalog]
    assert len(rows) == 3, "each but the last has a hundred lines without a quote, at least"
    assert sum(rows) == 300
    phrases = [f"a {n}" for n in range(40)]
    counts = kept.count(catalog, "title", phrases).list_kept()
    assert counts == FirstPass().count(catalog, "title", phrases).list_kept()
    found = scan_in_parts(catalog, tmp_path / "found", MarkScorer(), form=ScanForm(chunk=16), file_rows=rows)
    wanted, table = scan_once(catalog, tmp_path)
    assert read_parts(tmp_path / "found").equals(table)
    compare(found, wanted)
    assert len(list_finding_files(tmp_path / "found")) == len(rows)


def test_an_interrupted_scan_makes_no_part_twice(catalog, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        scan_in_parts(catalog, tmp_path / "found", Stopped(), form=ScanForm(chunk=16))
    assert not (tmp_path / "found").exists()
    scorer = MarkScorer()
    found = scan_in_parts(catalog, tmp_path / "found", scorer, form=ScanForm(chunk=16))
    assert found.resumed == 192
    assert sum(scorer.asked) == 108
    wanted, table = scan_once(catalog, tmp_path)
    assert read_parts(tmp_path / "found").equals(table)
    compare(found, wanted)


def test_what_an_earlier_scan_left_is_not_taken_for_another(catalog, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        scan_in_parts(catalog, tmp_path / "found", Stopped(), form=ScanForm(chunk=16))
    damaged = tmp_path / "found.partial" / "part-00001.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    scorer = MarkScorer()
    assert scan_in_parts(catalog, tmp_path / "found", scorer, form=ScanForm(chunk=16)).resumed == 144, (
        "but for the damaged one"
    )
    scorer = MarkScorer()
    found = scan_in_parts(catalog, tmp_path / "found", scorer, form=ScanForm(chunk=8))
    assert (found.resumed, max(scorer.asked)) == (0, 8), "and an older folder is replaced"
    assert read_parts(tmp_path / "found").height == 299


def test_folders_that_are_not_replaced(catalog, folder, tmp_path):
    scan_in_parts(catalog, tmp_path / "mine", MarkScorer())
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    (tmp_path / "plain").write_text("x")
    for source, out, said in [
        (catalog, tmp_path / "mine", "a folder with other files"),
        (catalog, tmp_path / "plain", "a file without an ending"),
        (catalog, tmp_path, "a folder with other files"),
        (folder, folder / "found", "lies in the catalogue's folder"),
    ]:
        with pytest.raises(UserError, match=said):
            scan_in_parts(source, out, MarkScorer())
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"


def test_a_catalogue_without_readable_rows_is_refused(tmp_path):
    (tmp_path / "items.csv").write_bytes(b"title\n\xff\n\xfe\n")
    with pytest.raises(UserError, match="None of the rows"):
        scan_in_parts(tmp_path / "items.csv", tmp_path / "found", MarkScorer())
    assert [path.name for path in tmp_path.iterdir()] == ["items.csv"]


def test_a_folder_of_parts_is_read_as_findings(catalog, tmp_path):
    scan_in_parts(catalog, tmp_path / "found", MarkScorer(), form=ScanForm(chunk=16))
    scan_once(catalog, tmp_path)
    assert read_reviewed(tmp_path / "found") == read_reviewed(tmp_path / "one.parquet")
    (tmp_path / "found" / "part-00002.parquet").unlink()
    with pytest.raises(UserError, match=r"lacks part-00002\.parquet"):
        read_reviewed(tmp_path / "found")
    with pytest.raises(UserError, match="no folder of findings"):
        read_reviewed(tmp_path)


# The first pass


def test_a_shared_first_pass_keeps_the_sample_of_one_process(catalog, folder, monkeypatch):
    monkeypatch.setattr("cowbird.scanning.first_pass.MAX_TITLES_SAMPLED", 50)
    for path in (catalog, folder):
        alone, shared = FirstPass(), SharedFirstPass(None, InlineCluster())
        wanted, found = alone.sample(path, "title"), shared.sample(path, "title")
        assert found.list_titles() == wanted.list_titles()
        assert len(found) == 50
        assert not found.complete
        assert not wanted.complete
    assert shared.file_rows[folder] == (70, 1, 0, 129, 50, 50)


def test_shared_counts_are_those_of_one_process(catalog, folder):
    phrases = ["a", "a 7", "nowhere"]
    wanted = FirstPass().count(catalog, "title", phrases).list_kept()
    assert (len(wanted["a"]), wanted["a 7"]) == (MAX_WITNESSES, ["a 7"])
    for path in (catalog, folder):
        reports = [(0, 0, "")]

        def report(*told, reports=reports):
            reports.append(told)

        assert SharedFirstPass(None, InlineCluster()).count(path, "title", phrases, report).list_kept() == wanted
        assert reports[-1] == (300, 300, "phrases counted")


def test_a_small_sample_is_complete(catalog, folder):
    for path in (catalog, folder):
        assert SharedFirstPass(None, InlineCluster()).sample(path, "title").complete


def test_an_interrupted_first_pass_goes_on_behind_its_files(folder, tmp_path, monkeypatch):
    calls = []

    class Stopping(InlineCluster):
        def get(self, result):
            if len(calls) == 3:
                raise KeyboardInterrupt
            calls.append(result[1][1])
            return super().get(result)

    monkeypatch.setattr("cowbird.scanning.first_pass.SECONDS_BETWEEN_SAVES", 0.0)
    with pytest.raises(KeyboardInterrupt):
        SharedFirstPass(tmp_path / "found", Stopping()).sample(folder, "title")
    calls.clear()

    class Noting(InlineCluster):
        def get(self, result):
            calls.append(result[1][1])
            return super().get(result)

    later = SharedFirstPass(tmp_path / "found", Noting())
    assert later.sample(folder, "title").list_titles() == FirstPass().sample(folder, "title").list_titles()
    assert calls == [3, 4, 5]
    assert later.file_rows[folder] == (70, 1, 0, 129, 50, 50)


def test_few_files_are_read_by_this_process(folder):
    table = open_catalog(folder)
    assert [count_own_files(folder, table, workers) for workers in (1, 3, 4)] == [6, 6, 0]


def test_a_single_file_is_not_looked_for_on_other_machines(catalog, folder, monkeypatch):
    monkeypatch.setattr(sections, "SECTION_BYTES", 400)
    for path, wanted in ((catalog, (3, 0)), (folder, (6, 6))):
        table = open_catalog(path)
        assert tuple(count_own_files(path, table, 1, here=here) for here in (True, False)) == wanted


@pytest.mark.parametrize("rows", ["", "1,Heat,0.5,false,,,,\n"])
def test_findings_without_any_that_counts_are_read(tmp_path, rows):
    path = tmp_path / "findings.csv"
    path.write_text("row,title,score,flagged,start,end,tier,reason\n" + rows)
    assert read_reviewed(path) == []


# Real processes


@pytest.mark.slow
def test_a_worker_that_dies_costs_its_parts_alone(catalog, tmp_path):
    make = partial(make_dying, str(tmp_path / "mark"))
    with LocalCluster(2) as cluster, pytest.raises(OutageError, match="ended before its time"):
        scan_in_parts(catalog, tmp_path / "found", MarkScorer(), make, cluster, form=ScanForm(chunk=16))
    assert (tmp_path / "mark").exists()
    with LocalCluster(2) as cluster:
        found = scan_in_parts(catalog, tmp_path / "found", MarkScorer(), make, cluster, form=ScanForm(chunk=16))
    wanted, table = scan_once(catalog, tmp_path)
    assert read_parts(tmp_path / "found").equals(table)
    compare(found, wanted)


def make_products(many):
    """Return different titles of words, some with the same odd word."""
    draw = np.random.default_rng(5)
    words = [
        f"{head}{tail}" for head in ("ba", "ke", "lo", "mi", "su", "ta") for tail in ("ron", "dal", "vex", "pin", "gor")
    ]
    picked = np.array(words)[draw.integers(0, len(words), (many, 4))].tolist()
    return [" ".join(row) + f" {nth}" + " 5v" * (nth % 97 == 0) for nth, row in enumerate(picked)]


class KillingMaker:
    """Makes a ready scorer, and kills the first process that asks for one behind a mark."""

    def __init__(self, make, mark):
        self.make, self.mark = make, mark

    def __call__(self):
        scorer, judge = self.make(), self.make().judge.judge
        mark = Path(self.mark)

        def kill_once(titles):
            if any("5v" in title for title in titles) and not mark.exists():
                mark.write_text("killed")
                os.kill(os.getpid(), signal.SIGKILL)
            return judge(titles)

        object.__setattr__(scorer.judge, "judge", kill_once)
        return scorer


@pytest.mark.slow
@pytest.mark.long
def test_the_small_tagger_on_two_workers_of_a_cluster_one_of_them_killed(tmp_path, monkeypatch):
    """Both passes on Ray: the same bytes as in one process, whatever dies."""
    pytest.importorskip("ray")
    for module in (scan_parts, shared_first_pass):
        monkeypatch.setattr(module, "ROWS_PER_PART", 2000)
    roots = [str(Path(scan_parts.__file__).parents[2]), str(Path(__file__).parents[1]), str(Path(__file__).parent)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(roots))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    titles, folder = make_products(24_000), tmp_path / "items"
    folder.mkdir()
    for nth in range(6):
        frame = pl.DataFrame(
            {"id": range(nth * 4000, nth * 4000 + 4000), "title": titles[nth * 4000 : nth * 4000 + 4000]}
        )
        frame.write_parquet(folder / f"{nth}.parquet")
    pl.DataFrame({"id": range(24_000), "title": titles}).write_csv(tmp_path / "items.csv")
    scanner = ReadyScanner.load("cpu", "small")
    wanted = open_ready_scanner(scanner, folder, "cpu")
    scan_catalog(folder, tmp_path / "one.parquet", wanted)
    table = pl.read_parquet(tmp_path / "one.parquet")
    assert table["flagged"].sum() > 0
    with join_cluster(None, 2) as cluster:
        for catalog in (folder, tmp_path / "items.csv"):
            out = tmp_path / f"found-{catalog.stem}-{catalog.suffix[1:]}"
            kept = SharedFirstPass(out, cluster)
            scorer = open_ready_scanner(scanner, catalog, "cpu", kept=kept)
            assert (scorer.judge.baseline.key, scorer.complete) == (wanted.judge.baseline.key, False)
            rows = kept.file_rows.get(catalog, ())
            assert len(rows) == (6 if catalog is folder else 0)
            mark = out.with_suffix(".killed")
            make = KillingMaker(scorer.make_factory(), str(mark))
            scan_in_parts(catalog, out, scorer, make, cluster, file_rows=rows)
            assert mark.exists(), "a worker was killed"
            assert read_parts(out).equals(table)


# The command


def test_the_command_writes_a_folder_where_the_name_has_no_ending(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ReadyScanner, "load", lambda place="cpu", tagger="llm", slips=False: ReadyDouble())
    given = ("scan", folder, "--device", "cpu", "--out")
    code, out, err = call_command(monkeypatch, capsys, *given, tmp_path / "one.parquet", "--json")
    other, shown, _ = call_command(monkeypatch, capsys, *given, tmp_path / "found", "--json")
    assert code == other, err
    wanted, found = json.loads(out), json.loads(shown)
    differing = {name for name in wanted if wanted[name] != found[name]}
    assert differing <= {"findings", "seconds", "titles_per_second"}
    assert read_parts(tmp_path / "found").equals(pl.read_parquet(tmp_path / "one.parquet"))
    assert len(list_finding_files(tmp_path / "found")) == 6, "files were read apart"
    assert not list(tmp_path.glob("*.first-pass"))


def test_a_gate_reads_parts(catalog, tmp_path, monkeypatch, capsys):
    given = ("scan", catalog, "--detector", "character_rules", "--device", "cpu", "-q", "--max-flagged", "0")
    call_command(monkeypatch, capsys, *given, "--out", tmp_path / "one.csv", "--summary", tmp_path / "one.json")
    call_command(monkeypatch, capsys, *given, "--out", tmp_path / "found", "--summary", tmp_path / "found.json")
    one, found = (json.loads((tmp_path / name).read_text()) for name in ("one.json", "found.json"))
    assert one == found


@pytest.mark.slow
def test_processes_of_this_machine(folder, tmp_path, monkeypatch, capsys):
    given = ("scan", folder, "--tagger", "small", "--device", "cpu", "-q", "--workers", 2, "--out")
    call_command(monkeypatch, capsys, *given, tmp_path / "one.parquet")
    call_command(monkeypatch, capsys, *given, tmp_path / "found")
    assert read_parts(tmp_path / "found").equals(pl.read_parquet(tmp_path / "one.parquet"))


@pytest.mark.parametrize("section", [400, 1 << 20])
def test_workers_count_the_rows_that_can_not_be_read(catalog, monkeypatch, section):
    monkeypatch.setattr(sections, "SECTION_BYTES", section)
    lines = catalog.read_bytes().splitlines()
    catalog.write_bytes(b"\n".join(line + b",more" * (nth % 7 == 6) for nth, line in enumerate(lines)))
    alone, shared = FirstPass(), SharedFirstPass(None, InlineCluster())
    alone.sample(catalog, "title")
    shared.sample(catalog, "title")
    assert [each.count for each in shared.unread[catalog]] == [43, 1]
    assert shared.unread == alone.unread
