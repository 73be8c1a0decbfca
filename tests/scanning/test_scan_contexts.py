"""Scans whose tagger is shown titles first: the same findings in one process or several, in parts, resumed, in any
order. The tagger is a real one with random weights, and the sample holds a part of the titles."""

import json

import polars as pl
import pytest

from cowbird.defenses.p_scanner.calibrated import CalibratedScanner, load_calibrated_scanner
from cowbird.defenses.p_scanner.ready import ReadyScanner
from cowbird.defenses.p_scanner.title_context import NO_CONTEXT
from cowbird.local_cluster import InlineCluster, LocalCluster
from cowbird.scanning import first_pass, scan_parts, shared_first_pass
from cowbird.scanning.first_pass import FirstPass
from cowbird.scanning.parts_folder import list_finding_files
from cowbird.scanning.pool import ScorerPool
from cowbird.scanning.ready_scorer import ReadySettings, open_ready_scanner
from cowbird.scanning.scan import ScanForm, scan_catalog
from cowbird.scanning.scan_parts import scan_in_parts
from cowbird.scanning.shared_first_pass import SharedFirstPass
from defenses.p_scanner.ready_doubles import ContextDouble, make_titles
from doubles.tiny_tagger import save_tagger

TITLES = [f"{title} 5v" if nth < 6 else title for nth, title in enumerate(make_titles(150))]
BEFORE = make_titles(300)[150:260]


@pytest.fixture(scope="module")
def scanner(tmp_path_factory):
    pytest.importorskip("transformers")
    return ReadyScanner.load("cpu", save_tagger(tmp_path_factory.mktemp("own"), [*TITLES, *BEFORE]))


@pytest.fixture(autouse=True)
def small_sample(monkeypatch):
    monkeypatch.setattr(first_pass, "MAX_TITLES_SAMPLED", 90)
    monkeypatch.setattr(first_pass, "TITLES_PER_PART", 40)
    for module in (scan_parts, shared_first_pass):
        monkeypatch.setattr(module, "ROWS_PER_PART", 40)


@pytest.fixture
def before(tmp_path):
    path = tmp_path / "before.jsonl"
    path.write_text("".join(json.dumps({"title": title}) + "\n" for title in BEFORE))
    return path


@pytest.fixture(params=["by itself", "beside a reference"])
def settings(request, before):
    return ReadySettings(before if request.param == "beside a reference" else None, fpr=0.05, review_fpr=0.2)


def write_catalog(path, titles):
    pl.DataFrame({"id": titles, "title": titles}).write_csv(path)
    return path


@pytest.fixture
def catalog(tmp_path):
    return write_catalog(tmp_path / "items.csv", TITLES)


def scan(scorer, catalog, out, chunk=64):
    scan_catalog(catalog, out, scorer, form=ScanForm(chunk=chunk))
    return pl.read_parquet(out)


@pytest.fixture
def wanted(scanner, catalog, settings, tmp_path):
    scorer = open_ready_scanner(scanner, catalog, "cpu", settings)
    found = scan(scorer, catalog, tmp_path / "one.parquet")
    assert found["score"].n_unique() > 100
    assert found["tier"].n_unique() > 1
    assert scorer.judge.baseline.context
    return found


def test_what_is_shown_counts(scanner, catalog, settings, wanted, tmp_path):
    """Otherwise the other tests here would show nothing."""
    scorer = open_ready_scanner(scanner, catalog, "cpu", settings)
    assert scanner.shows_context
    other = BEFORE[::-1][:40]
    object.__setattr__(scorer.judge.baseline, "context", type(scorer.judge.baseline.context).choose(other))
    assert not scan(scorer, catalog, tmp_path / "other.parquet").equals(wanted)


def test_neither_chunks_nor_the_order_of_rows_count(scanner, settings, wanted, tmp_path):
    turned = write_catalog(tmp_path / "turned.csv", TITLES[::-1])
    scorer = open_ready_scanner(scanner, turned, "cpu", settings)
    found = scan(scorer, turned, tmp_path / "found.parquet", chunk=7)
    told = [name for name in found.columns if name not in ("row", "scanner")]
    assert found.select(told).sort("id").equals(wanted.select(told).sort("id"))


@pytest.mark.parametrize("reads", [1, 2, 4])
def test_an_interrupted_first_pass_goes_on_to_the_same_findings(
    scanner, catalog, settings, wanted, tmp_path, monkeypatch, reads
):
    kept, asked, whole = FirstPass(tmp_path / "found.parquet"), [], []
    read = ReadyScanner.read

    def stop(self, titles, *given):
        asked.append(titles)
        if len(asked) == reads:
            raise KeyboardInterrupt
        return read(self, titles, *given)

    def count(self, titles, *given):
        whole.append(titles)
        return read(self, titles, *given)

    monkeypatch.setattr(ReadyScanner, "read", count)
    open_ready_scanner(scanner, catalog, "cpu", settings)
    monkeypatch.setattr(ReadyScanner, "read", stop)
    with pytest.raises(KeyboardInterrupt):
        open_ready_scanner(scanner, catalog, "cpu", settings, kept)
    before = len(asked)
    scorer = open_ready_scanner(scanner, catalog, "cpu", settings, kept)
    assert len(asked) - before == len(whole) - (reads - 1), "parts that were kept are not read again"
    monkeypatch.setattr(ReadyScanner, "read", read)
    assert scan(scorer, catalog, tmp_path / "found.parquet").equals(wanted)


@pytest.mark.parametrize("way", ["by itself", "beside a reference", "calibrated"])
def test_the_whole_first_pass_reads_behind_one_context(way, before, tmp_path):
    titles = [f"{title} 5v" if nth % 9 == 0 else title for nth, title in enumerate(make_titles(150))]
    double, catalog = ContextDouble(), write_catalog(tmp_path / "more.csv", titles)
    scanner = CalibratedScanner.calibrate(double, BEFORE, fpr=0.05) if way == "calibrated" else double
    double.contexts.clear()
    settings = ReadySettings(before if way == "beside a reference" else None)
    baseline = open_ready_scanner(scanner, catalog, "cpu", settings).judge.baseline
    assert baseline.counted
    assert not set(double.asked[-1]) & {title for part in double.asked[:-1] for title in part}, "witnesses are others"
    alone = 3 if way == "by itself" else 0
    assert double.contexts[:alone] == [NO_CONTEXT] * alone
    assert set(double.contexts[alone:]) == {baseline.context}
    assert baseline.context


@pytest.mark.slow
def test_in_parts_they_are_the_same(scanner, catalog, settings, wanted, tmp_path):
    cluster, out = InlineCluster(), tmp_path / "found"
    scorer = open_ready_scanner(scanner, catalog, "cpu", settings, SharedFirstPass(out, cluster))
    scan_in_parts(catalog, out, scorer, scorer.make_factory(), cluster, form=ScanForm(chunk=16))
    assert pl.concat(map(pl.read_parquet, list_finding_files(out))).equals(wanted)


@pytest.mark.slow
@pytest.mark.parametrize("settings", ["by itself"], indirect=True)
def test_processes_find_the_same(scanner, catalog, settings, wanted, tmp_path):
    scorer = open_ready_scanner(scanner, catalog, "cpu", settings)
    with ScorerPool(scorer, scorer.make_factory(), 2) as pool:
        assert scan(pool, catalog, tmp_path / "pool.parquet", chunk=16).equals(wanted)
    with LocalCluster(2, "cowbird.scanning.part_tasks") as cluster:
        out = tmp_path / "found"
        scorer = open_ready_scanner(scanner, catalog, "cpu", settings, SharedFirstPass(out, cluster))
        scan_in_parts(catalog, out, scorer, scorer.make_factory(), cluster, form=ScanForm(chunk=16))
    assert pl.concat(map(pl.read_parquet, list_finding_files(out))).equals(wanted)


@pytest.mark.slow
def test_a_calibration_that_was_read_back_finds_the_same(scanner, catalog, tmp_path):
    made = CalibratedScanner.calibrate(scanner, BEFORE, fpr=0.05)
    made.save(tmp_path / "before.cowbird")
    again = load_calibrated_scanner(tmp_path / "before.cowbird", scanner=scanner)
    scorers = [open_ready_scanner(each, catalog, "cpu") for each in (made, again)]
    first, second = (scan(each, catalog, tmp_path / f"{nth}.parquet", 16 + nth) for nth, each in enumerate(scorers))
    assert first.equals(second)
    assert first["score"].n_unique() > 100
    pieces = [float(made.judge_apart([title]).score[0]) for title in TITLES[:20]]
    assert made.judge_apart(TITLES[:20]).score.tolist() == pieces
