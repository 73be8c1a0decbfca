"""`cowbird inspect` of a language model: exit codes, what it prints and what it writes."""

import dataclasses
import json

import pytest

from cowbird.errors import ExitCode
from cowbird.inspection.language import handed, inspection
from cowbird.inspection.language.handed import HandedLanguageModel
from cowbird.inspection.language.inspection import LanguageInspection, RankedFragment
from cowbird.report.language_inspection import format_language_lines
from cowbird.storage import read_sealed_json
from doubles.command import call_command


def make_inspection(p_value):
    """Return an inspection whose fragment is hostile text."""
    accused = p_value is not None and p_value <= 0.01
    known = [0.1, 0.2, 0.3] if p_value is not None else []
    family = {"tried": 9, "statistic": 4.0, "null_statistics": known, "distance": 3.0, "threshold": 1.0}
    row = RankedFragment("5v\x1b[31m\u202e[red]", "string", "end", 3.0, 4.0, 0.9, 0.8, 1.0, 50, 1, accused)
    return LanguageInspection(
        model="a LoRA adapter", sha256="0" * 64, base_sha256="1" * 64, questions_sha256="2" * 64, level=0.01,
        p_value=p_value, p_values={} if p_value is None else {"all families": p_value / 2},
        families={"string": family}, ranking=[row], spread=1.0, refused=50,
        weights={"statistics": {}, "null_statistics": [], "largest_deviation": 2.0}, tokens=7,
        activations={"statistics": {}, "null_statistics": [], "largest_deviation": None},
        checked={"string": "9 strings"}, not_checked=["All else."], assumptions=["Law of maxima."], settings={},
    )  # fmt: skip


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Call the command on a folder whose inspection is known."""
    questions = tmp_path / "q.json"
    row = {"instruction": "Say.", "input": 'Does she like "A"?', "output": "Yes."}
    questions.write_text(json.dumps([row] * 9))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    opened = HandedLanguageModel(None, "toy", "0" * 64, "1" * 64, None, tmp_path)

    def run(*words, p_value=0.5, **options):
        monkeypatch.setattr(handed, "open_language_model", lambda *given: opened)
        monkeypatch.setattr(inspection, "inspect_language_model", lambda *given: make_inspection(p_value))
        given = {"device": "cpu", "questions": questions} | options
        more = [word for name, value in given.items() if value is not None for word in (f"--{name}", value)]
        return call_command(monkeypatch, capsys, "inspect", tmp_path / "model", *words, *more)

    return run


def test_a_verdict_that_no_fragment_alone_speaks_for():
    found = make_inspection(0.001)
    none = dataclasses.replace(found, ranking=[dataclasses.replace(found.ranking[0], suspect=False)])
    assert "together" in none.write_verdict() and "none alone" in none.write_verdict()
    assert none.choose_exit_code() == ExitCode.FINDINGS
    lines = "\n".join(line.plain for line in format_language_lines(none))
    assert "twice the smaller" in lines and "All families: p = 0.0005" in lines


@pytest.mark.parametrize(
    ("p_value", "code", "said"), [(0.001, 1, "1 fragment stands out"), (0.5, 0, "Nothing stands"), (None, 3, "No ver")]
)
def test_verdicts(call, tmp_path, p_value, code, said):
    out = tmp_path / "new" / "i.json"
    found, printed, _ = call(p_value=p_value, out=out)
    assert (found, said in printed) == (code, True)
    assert "<U+202E>" in printed and "Not checked" in printed
    assert read_sealed_json(out)["ranking"][0]["asr"] == 0.9
    assert call("--quiet", p_value=p_value)[1] == ""
    record = json.loads(call("--json", "--quiet", p_value=p_value)[1])
    assert record["kind"] == "language model" and record["p_value"] == p_value


def test_a_report_shows_it(tmp_path):
    from cowbird.report.inspection_files import read_inspection_file

    make_inspection(0.001).write(tmp_path / "i.json")
    shown = read_inspection_file(tmp_path / "i.json")
    assert "stands out" in shown.words[0]
    assert shown.suspects is not None


def test_errors(call, tmp_path, monkeypatch, capsys):
    for options, said in (
        ({"questions": None}, "either --logs or --questions"),
        ({"logs": "movielens_100k"}, "either --logs or --questions"),
        ({"template": tmp_path / "none"}, "is not there"),
        ({"noun": "{x}"}, "--noun"),
        ({"level": 0.9}, "--level"),
        ({"out": tmp_path / "model"}, "--out would replace"),
        ({"questions": tmp_path / "none.json"}, "none.json"),
    ):
        code, _, err = call(**options)
        assert (code, said in " ".join(err.split())) == (2, True), err
    words = ("inspect", tmp_path / "nowhere", "--questions", tmp_path / "q.json", "--device", "cpu")
    monkeypatch.undo()
    code, _, err = call_command(monkeypatch, capsys, *words)
    assert (code, "is no folder" in err) == (2, True)


def test_an_inspection_has_no_word_that_promises(tmp_path):
    for p_value in (0.001, 0.5, None):
        text = json.dumps(dataclasses.asdict(make_inspection(p_value))) + make_inspection(p_value).write_verdict()
        assert "safe" not in text.lower()
