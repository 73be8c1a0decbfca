"""`cowbird scan --detector`: every shipped detector that needs no victim, found by itself."""

import csv
import itertools
import sys

import numpy as np
import pytest

from cowbird import plugins
from cowbird.cli import app as cli
from cowbird.defenses.p_scanner.ready import ReadyScanner
from cowbird.defenses.titles import TitleDefense
from cowbird.errors import UserError
from cowbird.scanning.detectors import DetectorScorer, list_detectors, make_detector, open_detector
from cowbird.scanning.fitted_scorer import ScannerScorer
from cowbird.scanning.highlights import mark_span
from cowbird.scanning.ready_scorer import ReadyScorer
from defenses.conftest import llama  # noqa: F401
from defenses.p_scanner.ready_doubles import ReadyDouble

pytest.importorskip("transformers")

DETECTORS = {name: cls for name, cls in list_detectors().items() if not cls.needs_fit}
CLEAN = [
    " ".join(words) for words in itertools.product(("Red", "Blue"), ("Harbor", "Garden", "Engine"), ("Night", "Sea"))
]
HIDDEN = "Blue Mir\u200bror Sea"


def write(path, titles):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([("id", "title"), *enumerate(titles)])
    return path


@pytest.fixture
def call(monkeypatch, capsys):
    def run(*args):
        monkeypatch.setattr(sys, "argv", ["cowbird", "scan", *map(str, args), "--device", "cpu"])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        assert not set(out + err) & set("\x1b\u200b\u202e")
        return end.value.code or 0, " ".join(out.split()), " ".join(err.split())

    return run


def settings(name, llama):  # noqa: F811
    """Return what makes a detector cheap: a tiny model, if it reads with one."""
    reads = "llm" in DETECTORS[name].model_fields
    return ["--set", f"llm.name={str(llama)!r}"] if reads else []


def test_the_detectors_that_ship():
    assert {"character_rules", "onion", "perplexity"} <= DETECTORS.keys()
    assert {name for name, cls in list_detectors().items() if cls.needs_fit} == {"p_scanner", "ready_scanner"}
    for name in plugins.list_plugins("defense"):
        cls = plugins.find_plugin("defense", name)
        assert (name in list_detectors()) == (issubclass(cls, TitleDefense) and not cls.asks_victim)


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_scans_a_catalogue(call, tmp_path, llama, name):  # noqa: F811
    titles = [*CLEAN, HIDDEN, "", "\u202ered[/]\x1b[31m", "=1+1"]
    catalog, out = write(tmp_path / "catalog.csv", titles), tmp_path / "found.csv"
    code, shown, _ = call(catalog, "--detector", name, *settings(name, llama), "--set", "share=0.2", "--out", out)
    assert code == 1
    assert "most suspicious" in shown
    assert "The most suspicious 20.00% of each 8,192 rows are flagged, whether or not a trigger is among them" in shown
    with out.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(titles)
    flagged = [row for row in rows if row["flagged"] == "true"]
    assert 1 <= len(flagged) <= 3, "a share is never exceeded"
    assert all(
        float(row["score"]) >= max(float(r["score"] or "-inf") for r in rows if r not in flagged) for row in flagged
    )
    again = call(catalog, "--detector", name, *settings(name, llama), "--set", "share=0.2", "--out", tmp_path / "2.csv")
    assert again[0] == 1
    assert (tmp_path / "2.csv").read_bytes() == out.read_bytes()


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_takes_a_threshold_from_clean_titles(call, tmp_path, llama, name):  # noqa: F811
    rng = np.random.default_rng(0)
    words = ("Red", "Blue", "Harbor", "Garden", "Engine", "Letter", "Night", "Sea", "Quiet", "Road")
    clean = list(dict.fromkeys(" ".join(rng.choice(words, 4)) for _ in range(60)))
    reference = write(tmp_path / "clean.csv", clean)
    args = ("--detector", name, *settings(name, llama), "--reference", reference, "--out", tmp_path / "found.csv")
    code, shown, _ = call(reference, *args, "--fpr", "0.1")
    assert code in (0, 1)
    assert f"set by {len(clean)} titles of clean.csv that are taken for clean" in shown
    assert "about 10.00% score above it" in shown
    with (tmp_path / "found.csv").open(encoding="utf-8") as file:
        flagged = sum(row["flagged"] == "true" for row in csv.DictReader(file))
    assert flagged < 0.1 * (len(clean) + 1), "no more are flagged than the rate allows"
    code, _, err = call(reference, *args, "--fpr", "0.001")
    assert code == 2
    assert "needs 999 clean titles or more, and clean.csv has" in err


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_says_why(name, llama):  # noqa: F811
    cls = DETECTORS[name]
    detector = cls() if "llm" not in cls.model_fields else make_detector(name, [f"llm.name={str(llama)!r}"], "cpu")
    for title in (HIDDEN, "", "\ud800", "Red"):
        assert detector.explain(title, 3.0).strip()


@pytest.mark.slow
def test_a_rule_of_its_own_and_its_exit_codes(call, tmp_path):
    args = ("--detector", "character_rules", "--out", tmp_path / "found.jsonl")
    code, shown, _ = call(write(tmp_path / "bad.csv", [*CLEAN, HIDDEN]), *args)
    assert code == 1
    assert "row 13 Blue Mir»<U+200B>«ror Sea hidden characters (60 bits)" in shown
    assert "Threshold 9.5. Titles are flagged that break a rule: hidden, styled or lookalike characters" in shown
    assert "--reference FILE --fpr 0.01" in shown
    code, shown, _ = call(write(tmp_path / "looks.csv", [*CLEAN, "Red H\u0430rbor Night"]), *args)
    assert code == 1
    assert "letters that look like Latin ones and are not (12 bits)" in shown
    code, shown, _ = call(write(tmp_path / "good.csv", [*CLEAN, "Ночь над гаванью", "Ελληνικά"]), *args)
    assert code == 0, "a rare character is no rule"
    assert "most suspicious" not in shown
    (tmp_path / "part.csv").write_bytes("id,title\n1,Red\n2,\xff\n".encode("latin-1"))
    assert call(tmp_path / "part.csv", *args)[0] == 3
    assert call(tmp_path / "gone.csv", *args)[0] == 2
    code, shown, _ = call(tmp_path / "bad.csv", *args, "--set", "threshold=70")
    assert code == 0
    assert "It was set by hand." in shown


def test_a_stranger_s_detector(call, tmp_path):
    catalog = write(tmp_path / "catalog.csv", [*CLEAN, "Blue wow"])
    args = (catalog, "--detector", "doubles.defenses:Sees", "--allow-plugins", "--out", tmp_path / "found.csv")
    code, shown, _ = call(*args)
    assert code == 1
    assert "row 13 Blue »wow« suspicion 2" in shown


@pytest.mark.slow
def test_several_processes_find_the_same(call, tmp_path):
    catalog = write(tmp_path / "bad.csv", [*CLEAN, HIDDEN])
    args = (catalog, "--detector", "character_rules", "--chunk", "4", "--out")
    assert call(*args, tmp_path / "one.csv")[0] == 1
    assert call(*args, tmp_path / "two.csv", "--workers", "2")[0] == 1
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "50 different titles"),
        (("--set", "window=5"), "--set changes a field of a detector"),
        (("--fpr", "0"), "between 0 and 1"),
        (("--review-fpr", "1"), "between 0 and 1"),
        (("--fpr", "0.1", "--review-fpr", "0.05"), "can't be below --fpr 0.1"),
        (("--reference", "missing.csv"), "missing.csv"),
        (("--allow", "missing.txt"), "There is no file 'missing.txt'"),
        (("--detector", "character_rules", "--review-fpr", "0.1"), "--review-fpr is for the scanner that needs no fit"),
        (("--scanner", "x", "--review-fpr", "0.1"), "--review-fpr is for the scanner that needs no fit"),
        (("--detector", "cuckoo"), "There is no detector named 'cuckoo'"),
        (("--detector", "doubles.defenses:Sees"), "--allow-plugins"),
        (("--detector", "rap"), "asks the platform's model"),
        (("--detector", "fine_tune"), "does not judge titles"),
        (("--detector", "p_scanner"), "cowbird fit-scanner"),
        (("--detector", "character_rules", "--fpr", "0.01"), "--reference FILE"),
        (("--detector", "character_rules", "--fpr", "2"), "between 0 and 1"),
        (("--detector", "character_rules", "--set", "eggs=1"), "eggs: this key is not known"),
        (("--detector", "character_rules", "--set", "share=2"), "share: "),
        (("--detector", "character_rules", "--set", "share"), "is written as TOML"),
        (("--detector", "character_rules", "--scanner", "x"), "Give one of them"),
        (("--scanner", "x", "--set", "share=1"), "from its own fit"),
        (("--scanner", "x", "--reference", "x.csv"), "from its own fit"),
        (("--scanner", "x"), "does not hold a scanner"),
    ],
)
def test_errors_say_what_to_do(call, tmp_path, monkeypatch, args, said):
    monkeypatch.setattr(ReadyScanner, "load", lambda _, tagger="llm", slips=False: ReadyDouble())
    catalog = write(tmp_path / "catalog.csv", CLEAN)
    code, out, err = call(catalog, "--out", tmp_path / "found.csv", *args)
    assert (code, out) == (2, "")
    assert said in err
    assert not (tmp_path / "found.csv").exists()


def test_a_reference_that_can_not_be_read(tmp_path):
    with pytest.raises(UserError):
        open_detector("character_rules", make_detector("character_rules"), tmp_path / "gone.csv", 0.1)


def test_each_scorer_tells_rows_of_a_reference_that_it_could_not_read(tmp_path):
    reference = write(tmp_path / "clean.csv", CLEAN)
    reference.write_bytes(reference.read_bytes() + b"12,Broken \xff Night\n")
    wanted = make_detector("character_rules", [], "cpu", allow_plugins=False)
    beside, alone = open_detector("character_rules", wanted, reference, 0.1), DetectorScorer("character_rules", wanted)
    assert [(each.count, each.rows) for each in beside.reference_unread] == [(1, (len(CLEAN) + 1,))]
    for scorer in (alone, ScannerScorer(None, 0.01), ReadyScorer(None, "ready", "cpu", complete=False)):
        assert scorer.reference_unread == () and scorer.complete is False


def test_spans_are_marked_and_long_titles_are_cut():
    assert mark_span("Red Harbor", 4, 10).plain == "Red »Harbor«"
    assert mark_span("Red Harbor", None, None).plain == "Red Harbor"
    assert mark_span("a" * 100 + "X" + "b" * 100, 100, 101).plain == "…" + "a" * 60 + "»X«" + "b" * 60 + "…"
    assert mark_span("[red]\u202e" + "x", 6, 7).plain == "[red]<U+202E>»x«"
