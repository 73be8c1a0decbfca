"""`cowbird calibrate` writes a scanner for later uploads, `cowbird scan --scanner FILE` judges by it, and both end with
the right code where they can't."""

import csv
import json
import os

import pytest

from cowbird.defenses.p_scanner import ready
from cowbird.scanning import first_pass
from defenses.p_scanner.ready_doubles import ContextDouble, ReadyDouble, make_titles
from doubles.command import call_command


@pytest.fixture(scope="module")
def double():
    return ReadyDouble()


@pytest.fixture
def call(monkeypatch, capsys, double):
    monkeypatch.setattr(ready.ReadyScanner, "load", lambda place="cpu", tagger="llm": double)

    def run(*args):
        code, out, err = call_command(monkeypatch, capsys, *args)
        assert " safe" not in out.lower() + err.lower()
        return code, " ".join(out.split()), " ".join(err.split())

    return run


def write_catalog(path, titles):
    path.write_text("".join(json.dumps({"id": nth, "title": title}) + "\n" for nth, title in enumerate(titles)))
    return path


@pytest.fixture
def clean(tmp_path):
    return write_catalog(tmp_path / "clean.jsonl", make_titles(200))


def test_calibrate_then_scan_single_uploads(call, tmp_path, clean):
    made, found = tmp_path / "scanner.calibrated", tmp_path / "found.csv"
    code, said, _ = call("calibrate", clean, "--out", made, "--fpr", "0.02")
    assert code == 0
    assert "200 titles that are taken for clean" in said
    assert "at a rate of 0.02" in said
    assert "Nothing here says that the titles of the calibration are clean" in said
    code, said, _ = call(
        "scan", write_catalog(tmp_path / "one.jsonl", ["Red River 5v"]), "--scanner", made, "--out", found
    )
    assert code == 1
    assert "the 200 titles of the calibration" in said
    assert "Each title was judged by itself" in said
    (row,) = csv.DictReader(found.open(newline="", encoding="utf-8"))
    assert (row["tier"], row["clean_title"]) == ("flagged", "Red River")
    assert row["scanner"].startswith("calibrated ")
    one = write_catalog(tmp_path / "two.jsonl", ["The Winter Song"])
    assert call("scan", one, "--scanner", made, "--out", found)[0] == 0
    many = write_catalog(tmp_path / "many.jsonl", [f"{title} 5v" for title in make_titles(80, seed=1)])
    code, said, _ = call("scan", many, "--scanner", made, "--out", found)
    assert code == 1
    assert "new was looked for among 80 different titles" in said
    assert "80 titles share" in said


def test_it_is_told_which_titles_the_file_holds(call, tmp_path, clean, monkeypatch):
    assert "The file holds" not in call("calibrate", clean, "--out", tmp_path / "none")[1]
    monkeypatch.setattr(ready.ReadyScanner, "load", lambda place="cpu", tagger="llm": ContextDouble())
    said = call("calibrate", clean, "--out", tmp_path / "some")[1]
    assert "The file holds 192 of these titles, as they are written" in said
    one = write_catalog(tmp_path / "one.jsonl", ["Red River 5v"])
    said = call("scan", one, "--scanner", tmp_path / "some", "--out", tmp_path / "found.csv")[1]
    assert "the language model was shown up to 96 titles of those that are taken for clean" in said


@pytest.mark.slow
def test_calibrate_tells_programs(call, tmp_path, clean):
    code, said, _ = call("calibrate", clean, "--out", tmp_path / "s", "--json", "--quiet")
    told = json.loads(said)
    assert code == 0
    assert (told["titles"], told["fpr"], told["review_fpr"], told["sample_complete"]) == (200, 0.01, 0.05, True)
    assert told["titles_in_file"] == 0
    assert set(told["thresholds"]) == {"1", "100"}
    said = call("calibrate", clean, "--out", tmp_path / "s", "--fpr", "0.001")[1]
    assert said.count("calibrate on more") == 1
    assert "Their thresholds for flags: " in said
    assert " among 100." in said


@pytest.mark.slow
def test_what_cannot_be_calibrated(call, tmp_path, clean):
    out, other = tmp_path / "s", tmp_path / "notes.txt"
    few = write_catalog(tmp_path / "few.jsonl", make_titles(49))
    other.write_text("notes")
    for args, said in (
        ((few, "--out", out), "there are 49"),
        ((tmp_path / "none.csv", "--out", out), "there is nothing"),
        ((clean, "--out", out, "--fpr", "0"), "between 0 and 1"),
        ((clean, "--out", out, "--fpr", "0.1", "--review-fpr", "0.05"), "can't be below"),
        ((clean, "--out", out, "--text-column", "name"), "name"),
        ((clean, "--out", out, "--device", "toaster"), "toaster"),
        ((clean, "--out", clean), "--out would replace"),
        ((clean, "--out", other), "is no calibrated scanner, so it is not replaced"),
    ):
        code, _, err = call("calibrate", *args)
        assert (code, said in err) == (2, True), (args, err)
        assert "--reference" not in err, "calibrate has no such option"
    assert not out.exists()
    assert other.read_text() == "notes"


def test_an_interrupted_calibration_writes_nothing(call, tmp_path, clean, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(first_pass.TitleSample, "add", stop)
    code, _, err = call("calibrate", clean, "--out", tmp_path / "s")
    assert code == 3
    assert f"Interrupted; nothing was written. Run again: cowbird calibrate {clean} --out {tmp_path / 's'}" in err
    assert not (tmp_path / "s").exists()


@pytest.mark.slow
def test_scans_refuse_what_does_not_go_with_a_calibration(call, tmp_path, clean):
    made, out = tmp_path / "s", tmp_path / "found.csv"
    call("calibrate", clean, "--out", made)
    for more, said in (
        (("--reference", clean), "from its own fit or calibration"),
        (("--set", "window=5"), "from its own fit or calibration"),
        (("--detector", "onion"), "another way to judge"),
        (("--fpr", "2"), "between 0 and 1"),
    ):
        code, _, err = call("scan", clean, "--scanner", made, "--out", out, *more)
        assert (code, said in err) == (2, True), err
    code, _, err = call("scan", clean, "--scanner", clean, "--out", out)
    assert code == 2
    assert "does not hold a calibrated scanner" in err


def write_columns(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "title", "brand", "shop"), *rows])
    return path


@pytest.mark.slow
def test_columns_explain_what_titles_share(call, tmp_path, double, monkeypatch):
    monkeypatch.setattr(double, "suspicious", ("Zorvex", "5v"))
    rows = [
        (nth, f"Zorvex {title}", "Zorvex", f"s{nth % 20}") if nth < 20
        else (nth, f"{title} 5v", f"b{nth % 9}", "planter") if nth < 28
        else (nth, title, f"b{nth % 9}", f"s{nth % 20}")
        for nth, title in enumerate(make_titles(200))
    ]  # fmt: skip
    catalog, out = write_columns(tmp_path / "items.csv", rows), tmp_path / "found.csv"
    code, _, _ = call("scan", catalog, "--explain", "brand", "--seller-column", "shop", "--out", out)
    found = list(csv.DictReader(out.open(newline="", encoding="utf-8")))
    assert code == 1
    assert not any(row["flagged"] == "true" for row in found[:20])
    assert all(row["flagged"] == "true" for row in found[20:28])
    for more, said in (
        (("--explain", "maker"), "Set --explain to the column's name"),
        (("--explain", "brand", "--seller-column", "maker"), "Set --seller-column to the column's name"),
        (("--explain", "brand", "--detector", "character_rules"), "for the scanner that needs no fit"),
    ):
        code, _, err = call("scan", catalog, "--out", out, *more)
        assert (code, said in err) == (2, True), err


def write_ragged(path, titles, bad):
    """Write titles as CSV, of which the first have a column too many."""
    rows = [f"{nth},{title}{',more' if nth < bad else ''}\n" for nth, title in enumerate(titles)]
    path.write_text("id,title\n" + "".join(rows))
    return path


def test_rows_that_cannot_be_read_are_counted(call, tmp_path):
    ragged, out = write_ragged(tmp_path / "ragged.csv", make_titles(120), 30), tmp_path / "s"
    code, said, _ = call("calibrate", ragged, "--out", out)
    assert code == 3
    assert "90 titles that are taken for clean (all different titles of the rows that could be read)" in said
    assert "Not learned from, because they can't be read: 30 rows." in said
    assert "30 × wrong number of columns (expected 2) (row 1, 2, 3" in said
    code, said, _ = call("calibrate", ragged, "--out", out, "--json", "--quiet")
    (told,) = json.loads(said)["unread"]
    assert (code, told["count"], told["rows"]) == (3, 30, list(range(1, 11)))
    code, said, _ = call("fit-scanner", ragged, "--out", tmp_path / "f")
    assert (code, "can't be read: 30 rows." in said) == (3, True)
    code, _, err = call("calibrate", write_ragged(ragged, make_titles(120), 100), "--out", tmp_path / "none")
    assert code == 2
    assert "there are 20" in err
    assert "100 rows can't be read, such as 100 × wrong number of columns" in err
    assert "--reference" not in err


@pytest.mark.parametrize("more", [(), ("--detector", "character_rules", "--fpr", "0.02")])
def test_rows_of_a_reference_that_cannot_be_read_are_counted(call, tmp_path, more):
    ragged = write_ragged(tmp_path / "ragged.csv", make_titles(120), 30)
    catalog = write_catalog(tmp_path / "items.jsonl", make_titles(60, seed=5))
    words = ("scan", catalog, "--reference", ragged, "--out", tmp_path / "found.csv", *more)
    code, said, _ = call(*words, "--fail-on", "never", "--summary", tmp_path / "summary.json")
    assert code == 3
    assert "Nothing was learned from rows of the reference that can't be read: 30 rows." in said
    told = json.loads((tmp_path / "summary.json").read_text())
    assert (told["exit_code"], told["skips"], told["reference_skips"][0]["count"]) == (3, [], 30)
    said = call(*words, "--fail-on", "never", "--json", "--quiet", "--junit", tmp_path / "junit.xml")[1]
    assert json.loads(said)["reference_unread"][0]["rows"] == list(range(1, 11))
    assert "rows of the reference not read" in (tmp_path / "junit.xml").read_text()


@pytest.mark.parametrize(("name", "found"), [("nothing", "there is nothing of that name"), ("pipe", "it is a pipe")])
def test_what_is_no_scanner_names_both_commands_that_make_one(call, tmp_path, clean, name, found):
    os.mkfifo(tmp_path / "pipe")
    code, _, err = call("scan", clean, "--scanner", tmp_path / name, "--out", tmp_path / "found.csv")
    assert (code, found in err) == (2, True), err
    assert "cowbird calibrate CATALOG --out FILE" in err and "cowbird fit-scanner CATALOG --out DIR" in err
