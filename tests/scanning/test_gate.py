"""The gate: which findings count, exit codes, and reports for programs."""

import json
import xml.etree.ElementTree as ET

import pytest

from cowbird.errors import UserError
from cowbird.review.store import ReviewStore
from cowbird.scanning import gate
from doubles.command import call_command

RULES = ("--detector", "character_rules")


def write_catalog(folder, titles, name="items.jsonl"):
    path = folder / name
    lines = [title if isinstance(title, bytes) else json.dumps({"title": title}).encode() for title in titles]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


@pytest.fixture
def scan(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(titles, *words, out="found.jsonl"):
        path = write_catalog(tmp_path, titles)
        return call_command(monkeypatch, capsys, "scan", path.name, "--out", out, *RULES, *words)

    return run


TITLES = ["Mug", "Pot\u200b", "Cup\u202e <b>", "Pan"]


@pytest.mark.parametrize(
    ("titles", "words", "code"),
    [
        (TITLES, (), 1),
        (TITLES, ("--max-flagged", "1"), 1),
        (TITLES, ("--max-flagged", "2"), 0),
        (TITLES, ("--fail-on", "never"), 0),
        (TITLES, ("--fail-on", "review"), 1),
        (["Mug"], ("--max-flagged", "0", "--summary", "s.json"), 0),
        (["Mug", b"{"], ("--summary", "s.json"), 3),
        ([*TITLES, b"{"], ("--max-flagged", "5"), 3),
        ([*TITLES, b"{"], ("--max-flagged", "1"), 1),
        (TITLES, ("--fail-on", "sometimes"), 2),
        (TITLES, ("--max-flagged", "-1"), 2),
        (TITLES, ("--fail-on", "review", "--only-flagged"), 2),
        (TITLES, ("--sarif", "x", "--junit", "x"), 2),
        (TITLES, ("--summary", "items.jsonl"), 2),
        (TITLES, ("--baseline", "none.jsonl"), 2),
        (TITLES, ("--summary", "items.jsonl/s.json"), 2),
    ],
)
def test_exit_codes_stay_distinct(scan, titles, words, code):
    assert scan(titles, *words)[0] == code


def test_what_the_baseline_has_does_not_count(scan, tmp_path):
    assert scan(TITLES[:2], out="before.jsonl")[0] == 1
    code, _, err = scan(["first", *TITLES], "--baseline", "before.jsonl", "--summary", "s.json")
    assert code == 1 and "Gate failed: 1 findings count, 0 may; 1 are known" in err
    told = json.loads((tmp_path / "s.json").read_text())
    assert [(each["title"], each["counts"]) for each in told["findings"]] == [
        ("Cup\u202e <b>", True),
        ("Pot\u200b", False),
    ]
    assert scan(["first", *TITLES[:2]], "--baseline", "before.jsonl")[0] == 0


def test_the_summary_keeps_findings_errors_and_skips_apart(scan, tmp_path):
    scan([*TITLES, b"{"], "--summary", "s.json")
    told = json.loads((tmp_path / "s.json").read_text())
    assert (told["schema"], told["schema_version"], told["exit_code"]) == ("cowbird-scan-summary", 1, 1)
    assert told["counts"] == {
        "rows": 5, "judged": 4, "flagged": 2, "review": 0, "allowed": 0, "known": 0, "counted": 2, "skipped": 1,
    }  # fmt: skip
    assert len(told["findings"]) == 2 and told["errors"] == [] and told["skips"][0]["rows"] == [5]
    (tmp_path / "items.jsonl").unlink()
    assert scan([b"{"], "--summary", "s.json", "--sarif", "s.sarif", "--junit", "j.xml")[0] == 2
    told = json.loads((tmp_path / "s.json").read_text())
    assert told["exit_code"] == 2 and told["findings"] == [] and "is not JSON" in told["errors"][0]["message"]
    assert not json.loads((tmp_path / "s.sarif").read_text())["runs"][0]["invocations"][0]["executionSuccessful"]
    assert ET.parse(tmp_path / "j.xml").getroot()[0].get("errors") == "1"


def test_sarif_and_junit_hold_what_was_found_and_nothing_raw(scan, tmp_path):
    scan([*TITLES, "a\u200b\x00\x1b]]>&<![CDATA[", b"{"], "--sarif", "s.sarif", "--junit", "j.xml")
    text = (tmp_path / "s.sarif").read_text()
    (run,) = json.loads(text)["runs"]
    assert text.isascii() and len(run["results"]) == 3
    first = run["results"][0]
    assert (first["ruleId"], first["level"], first["baselineState"]) == ("planted-text", "error", "new")
    place = first["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "items.jsonl"}, "region": {"startLine": 2}}
    assert "<U+200B>" in first["message"]["text"] and len(first["partialFingerprints"]["cowbirdTitle/v1"]) == 64
    assert run["invocations"][0]["exitCode"] == 1
    assert "Rows not read" in run["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"]
    (suite,) = ET.parse(tmp_path / "j.xml").getroot()
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["5", "3", "0", "1"]
    said = suite.findall("testcase/failure")[2].get("message")
    assert "<U+0000><U+001B>]]>&<![CDATA[" in said


def test_reports_list_so_many_and_count_all(monkeypatch, scan, tmp_path):
    monkeypatch.setattr(gate, "MAX_LISTED", 3)
    scan([f"Pot {nth}\u200b" for nth in range(9)], "--sarif", "s.sarif", "--summary", "s.json")
    (run,) = json.loads((tmp_path / "s.sarif").read_text())["runs"]
    assert len(run["results"]) == 3
    assert "6 more findings" in run["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"]
    told = json.loads((tmp_path / "s.json").read_text())
    assert (len(told["findings"]), told["findings_left_out"], told["counts"]["counted"]) == (3, 6, 9)


def test_a_baseline_that_is_none_is_refused(tmp_path):
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="no column"):
        gate.read_baseline(tmp_path / "other.csv")


CONTROLS = ["a\x00b", "\x1b[31mred\x1b[0m", "=1\x85+1", "\tc\u200b\x9b\n", "Mug"]


@pytest.mark.parametrize("before", ["f.csv", "f.jsonl", "f.parquet"])
@pytest.mark.parametrize("after", ["g.csv", "g.jsonl", "g.ndjson"])
def test_a_baseline_knows_control_characters_in_each_format(scan, tmp_path, before, after):
    assert scan(CONTROLS, out=before)[0] == 1
    assert scan(CONTROLS, "--baseline", before, "--summary", "s.json", out=after)[0] == 0
    counts = json.loads((tmp_path / "s.json").read_text())["counts"]
    assert (counts["flagged"], counts["known"]) == (4, 4)
    assert scan([*CONTROLS, "a\x00bc"], "--baseline", before, out=after)[0] == 1, "it knows nothing else"


@pytest.mark.parametrize("out", ["f.csv", "f.jsonl", "f.ndjson", "f.parquet"])
def test_a_scan_that_writes_nothing_passes_and_is_a_baseline(scan, out):
    assert scan(["Mug"], "--only-flagged", "--summary", "s.json", out=out)[0] == 0
    assert scan(TITLES, "--baseline", out, out="found.jsonl")[0] == 1


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_what_a_review_dismissed_is_allowed_with_control_characters(scan, tmp_path, suffix):
    scan(CONTROLS[:3], out=f"f{suffix}")
    store = ReviewStore(tmp_path / f"f{suffix}")
    for row in store.list_groups(0, 9).rows:
        store.decide("group", row["id"], "dismissed", row["mark"])
    store.export_allowed(tmp_path / "allow.txt")
    store.close()
    assert scan(CONTROLS[:3], "--allow", "allow.txt", out="again.jsonl")[0] == 0
    assert scan(["a\u202eb"], "--allow", "allow.txt", out="again.jsonl")[0] == 1


@pytest.mark.slow
def test_the_hook_scans_each_file_and_ends_with_the_worst(tmp_path, monkeypatch):
    import sys

    from cowbird.cli import hook

    good, bad = write_catalog(tmp_path, ["Mug"], "good.jsonl"), write_catalog(tmp_path, TITLES, "bad.jsonl")
    codes = []
    for files in ([good], [good, bad], [bad, tmp_path / "none.jsonl"]):
        monkeypatch.setattr(sys, "argv", ["cowbird-hook", *RULES, "--quiet", "--", *map(str, files)])
        with pytest.raises(SystemExit) as end:
            hook.main()
        codes.append(end.value.code)
    assert codes == [0, 1, 2]
