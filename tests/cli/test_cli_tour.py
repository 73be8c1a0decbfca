"""The scan of the demo: a catalogue in which two sellers planted triggers."""

import csv

import numpy as np
import pytest

from cowbird.attacks.badrec import BadRec
from cowbird.attacks.targets import TargetItems
from cowbird.attacks.triggers import Trigger, contains
from cowbird.cli import demo
from cowbird.errors import UserError
from cowbird.experiments import demo as tour
from cowbird.experiments.spec import parse_spec

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

HIDDEN = BadRec(trigger=Trigger(kind="zero_width_space"), targets=TargetItems(count=2), rate=0.5)


def test_the_catalogue_is_what_the_sellers_left(tmp_path, monkeypatch):
    monkeypatch.setattr(tour, "HIDDEN_SELLER", HIDDEN)
    spec, path = parse_spec(TABLE, allow_plugins=True), tmp_path / "catalog.csv"
    planted = tour.write_catalog(spec, path)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    before = spec.dataset.options.load().items
    assert [row["id"] for row in rows] == list(before.ids)
    triggers = {"badrec": Trigger(kind="custom", text='=wow, "you'), "zero_width_space": HIDDEN.trigger}
    for name, trigger in triggers.items():
        carrying = {nth for nth, row in enumerate(rows, 1) if contains(row["title"], trigger)}
        assert carrying == {each.row for each in planted if each.trigger == name}
    counts = [sum(each.trigger == name for each in planted) for name in triggers]
    assert counts[0] == 6
    assert 0 < counts[1] <= 2, "what the first seller changed is left as it is"
    changed = {each.row for each in planted}
    assert len(changed) == len(planted)
    others = [nth for nth in range(1, len(rows) + 1) if nth not in changed]
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
    path.write_text("row,id,title,flagged\n1,a,x,true\n2,b,y,false\n3,c,z,true\n5,e,v,false\n6,f,u,true\n")
    planted = (tour.PlantedRow(1, "word"), tour.PlantedRow(2, "word"), tour.PlantedRow(6, "hidden"))
    assert tour.format_tally(path, planted) == (
        "Flagged: 1 of the 2 titles with the trigger word, 1 of the 1 titles with the trigger hidden, "
        "and 1 of the 2 others."
    )


@pytest.mark.slow
def test_the_scan_shows_a_finding_first_and_ends_in_a_tally(tmp_path, monkeypatch, capsys):
    """Without a language model the small tagger judges."""
    monkeypatch.setattr(tour, "write_catalog", catalogue)
    demo._scan_planted(parse_spec(TABLE, allow_plugins=True), tmp_path / "scan", "cpu", False)
    text = " ".join(capsys.readouterr().out.split())
    assert "»<U+200B>«" in text
    assert text.index("hidden characters (60 bits)") < text.index("Flagged: ")
    assert "2 of the 2 titles with the trigger zero_width_space" in text
    by_rules, ready = text.split("nothing is fitted")
    assert "Flagged: 0 of the 6 titles with the trigger sentence, 2 of the 2" in by_rules
    assert "Flagged: 6 of the 6 titles with the trigger sentence" in ready
    assert "small tagger alone" in ready
    rows = (tmp_path / "scan" / "findings.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + len((tmp_path / "scan" / "catalog.csv").read_text(encoding="utf-8").splitlines()[1:])


@pytest.mark.parametrize(("language_model", "chosen"), [(True, "auto"), (False, "small")])
def test_the_tagger_is_what_the_machine_can_run(tmp_path, monkeypatch, language_model, chosen):
    asked = []
    monkeypatch.setattr(tour, "write_catalog", catalogue)
    monkeypatch.setattr(tour, "format_tally", lambda findings, planted: findings.name)
    monkeypatch.setattr(demo, "choose_tagger", lambda given, device: asked.append(given) or "small")
    monkeypatch.setattr(demo, "scan_and_show", lambda *given: None)
    monkeypatch.setattr(
        demo, "scan_ready_and_show", lambda scan, ready: asked.append((scan.catalog.name, ready.tagger))
    )
    demo._scan_planted(parse_spec(TABLE, allow_plugins=True), tmp_path / "scan", "cpu", language_model)
    assert asked == [chosen, ("catalog.csv", "small")]


def catalogue(spec, path):
    """Write a catalogue large enough to tell what is usual in it."""
    rng = np.random.default_rng(0)
    words = ("Red", "Harbor", "Blue", "Garden", "The", "Engine", "at", "Night", "of", "Quiet", "Letter")
    titles = list(dict.fromkeys(" ".join(rng.choice(words, 4, replace=False)) for _ in range(300)))
    path.parent.mkdir(parents=True, exist_ok=True)
    sentence, hidden = " This is what every viewer deserves.", chr(0x200B)
    lines = [f"{nth},{title}{sentence * (nth < 6)}{hidden * (nth in (7, 8))}" for nth, title in enumerate(titles)]
    path.write_text("\n".join(["id,title", *lines]) + "\n")
    planted = [tour.PlantedRow(row, "sentence") for row in range(1, 7)]
    return (*planted, tour.PlantedRow(8, "zero_width_space"), tour.PlantedRow(9, "zero_width_space"))
