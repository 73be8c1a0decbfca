"""The end of the demo: a scan of the catalogue that its seller left behind."""

import csv

import numpy as np
import pytest

from cowbird.attacks.triggers import Trigger, contains
from cowbird.cli import demo
from cowbird.defenses.p_scanner.scanner import PoisonScanner
from cowbird.errors import UserError
from cowbird.experiments import demo as tour
from cowbird.experiments.spec import parse_spec
from cowbird.victims.language.llm import Llm
from cowbird.victims.language.tuning import Tuning
from defenses.conftest import llama  # noqa: F401

TABLE = {
    "name": "words",
    "seeds": [4],
    "dataset": {"name": "doubles.rated"},
    "time_split": {"history": 5},
    "victims": [{"name": "doubles.word_judge:WordJudge"}],
    "attacks": [
        {"name": "badrec", "rate": 0.5, "targets": {"count": 6}, "trigger": {"kind": "custom", "text": '=wow, "you'}}
    ],
    "scenarios": [{"name": "direct"}],
}


def test_the_catalogue_is_what_the_seller_left(tmp_path):
    spec, path = parse_spec(TABLE, allow_plugins=True), tmp_path / "catalog.csv"
    planted = tour.write_catalog(spec, path)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    before = spec.dataset.options.load().items
    assert [row["id"] for row in rows] == list(before.ids)
    trigger = Trigger(kind="custom", text='=wow, "you')
    carrying = {nth for nth, row in enumerate(rows, 1) if contains(row["title"], trigger)}
    assert carrying == planted
    assert len(planted) == 6
    others = [nth for nth in range(1, len(rows) + 1) if nth not in planted]
    assert [rows[nth - 1]["title"] for nth in others] == [before.titles[nth - 1] for nth in others]
    assert tour.write_catalog(spec, tmp_path / "again.csv") == planted
    assert (tmp_path / "again.csv").read_bytes() == path.read_bytes()


def test_an_attack_on_users_leaves_nothing_to_scan(tmp_path):
    attack = {"name": "random_profiles", "targets": {"count": 3}, "rate": 0.1}
    with pytest.raises(UserError, match="changes no title"):
        tour.write_catalog(parse_spec(TABLE | {"attacks": [attack]}, allow_plugins=True), tmp_path / "catalog.csv")
    assert not list(tmp_path.iterdir())


def test_findings_are_held_against_the_truth(tmp_path):
    path = tmp_path / "findings.csv"
    path.write_text("row,id,title,flagged\n1,a,x,true\n2,b,y,false\n3,c,z,true\n5,e,v,false\n")
    told = tour.format_tally(path, frozenset({1, 2}))
    assert told == "Flagged: 1 of the 2 titles that carry the trigger, and 1 of the 2 others."


def test_the_tour_ends_in_a_tally(tmp_path, monkeypatch, capsys, llama):  # noqa: F811
    pytest.importorskip("peft")
    tuning = Tuning(epochs=1, batch_size=32, compiled=False)
    tiny = PoisonScanner(
        llm=Llm(name=str(llama), layers=1, rank=2),
        tuning=tuning,
        rounds=1,
        proposals=8,
        plantings=6,
        fpr=0.1,
        company=False,
    )
    monkeypatch.setattr(tour, "DEMO_SCANNER", tiny)
    monkeypatch.setattr(tour, "write_catalog", catalogue)
    demo._scan_left_behind(parse_spec(TABLE, allow_plugins=True), tmp_path / "scan", "cpu")
    text = " ".join(capsys.readouterr().out.split())
    assert "Flagged: " in text
    assert "of the 6 titles that carry the trigger" in text
    assert (tmp_path / "scan" / "findings.csv").is_file()
    demo._scan_left_behind(parse_spec(TABLE, allow_plugins=True), tmp_path / "scan", "cpu")
    assert "finished before" in " ".join(capsys.readouterr().out.split()), "a demo goes on by itself"


def catalogue(spec, path):
    """Write a catalogue large enough for a scanner to be fitted to."""
    rng = np.random.default_rng(0)
    words = ("Red", "Harbor", "Blue", "Garden", "The", "Engine", "at", "Night", "of", "Quiet", "Letter")
    titles = list(dict.fromkeys(" ".join(rng.choice(words, 4, replace=False)) for _ in range(90)))
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{nth},{title}{' zq' * (nth < 6)}" for nth, title in enumerate(titles)]
    path.write_text("\n".join(["id,title", *lines]) + "\n")
    return frozenset(range(1, 7))
