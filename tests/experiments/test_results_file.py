"""The ledger: rows of finished cells in the order of the spec, made once, whole after an interrupt."""

import itertools
import json

import numpy as np
import pytest

from cowbird.errors import UserError
from cowbird.experiments import executor, results, run_folder
from cowbird.experiments.cell import list_cells
from cowbird.experiments.cell_files import PlantedSummary
from cowbird.experiments.results_file import ResultsFile
from cowbird.experiments.run import run
from cowbird.experiments.spec import parse_spec
from cowbird.experiments.tasks.ranking import RankingTask
from cowbird.experiments.tasks.ranking import rows as ranking_rows
from cowbird.experiments.tasks.ranking.rows import RankingEvidence
from cowbird.files import hash_file, write_text
from cowbird.rng import stream
from doubles.evidence import write_record

pytestmark = pytest.mark.slow

VICTIMS, ATTACKS, SCENARIOS, SEEDS = ("z", "a"), ("late", "early"), ("pretrain", "b"), (5, 2, 9)
"""None of them sorted, so that the order can be told from any other."""


@pytest.fixture
def spec():
    return parse_spec(
        {
            "name": "kept",
            "seeds": list(SEEDS),
            "ks": [5],
            "dataset": {"name": "synthetic", "users": 20, "items": 12, "events_per_user": 5},
            "victims": [{"name": "sasrec", "label": label} for label in VICTIMS],
            "attacks": [{"name": "basic_replacement", "label": label} for label in ATTACKS],
            "scenarios": [{"name": "pretrain"}, {"name": "direct", "label": "b"}],
        }
    )


def record(cell, attack, scenario):
    """Make up evidence, other for every cell, attack and scenario."""
    rng = stream(cell.seed, cell.victim.title(), attack, scenario)
    users, shape = 12, (12, 2)
    group = np.ones(users, dtype=bool)
    ranks = [rng.integers(1, 20, users).astype(np.int32) for _ in range(2)]
    shown = [rng.integers(1, 12, shape).astype(np.int32) for _ in range(2)]
    return RankingEvidence(scenario, attack, "none", *ranks, *shown, np.zeros(shape, dtype=bool), group)


def planted(cell, attack):
    return PlantedSummary(
        sha256=f"{cell.title}, {attack}", rows=1, budget=1, share_of_labels=0.5, targets=("x",), target_titles=("X",)
    )


def finish(cell, attacks=ATTACKS, errors=()):
    """Write what a finished cell leaves behind."""
    held = {}
    for attack in reversed(attacks):
        for scenario in reversed(SCENARIOS):
            path = cell.folder / "evidence" / f"{attack}+none+{scenario}.safetensors"
            write_record(path, RankingTask, record(cell, attack, scenario))
            held[path.stem] = hash_file(path)
    plans = {attack: planted(cell, attack).model_dump() for attack in attacks}
    told = {"errors": list(errors), "evidence": held, "plans": plans, "covers": cell.list_labels()}
    write_text(cell.folder / "cell.json", json.dumps(told))


def whole(spec, folder):
    """Return the ledger of a run whose cells are all finished."""
    for cell in list_cells(spec, folder):
        finish(cell)
    ledger = ResultsFile(spec, folder)
    assert ledger.update() == 6
    return ledger


def place(row):
    """Where a row belongs: by the places of its labels in the spec."""
    return VICTIMS.index(row.victim), ATTACKS.index(row.attack), SCENARIOS.index(row.scenario)


# The order


def test_rows_are_ordered_as_the_spec(spec, tmp_path):
    rows = [row for row in whole(spec, tmp_path).make_rows(pooled=True) if row.attack != "none"]
    assert {place(row) for row in rows} == set(itertools.product(range(2), repeat=3))
    places = [place(row) for row in rows]
    assert places == sorted(places)
    for _, part in itertools.groupby(rows, key=place):
        seeds = [seed for seed, _ in itertools.groupby(row.seed for row in part)]
        assert seeds == [*SEEDS, None]


@pytest.mark.parametrize("order", [pytest.param([5, 4, 3, 2, 1, 0], marks=pytest.mark.slow), [3, 0, 5, 1, 4, 2]])
def test_whichever_cell_is_finished_first(spec, tmp_path, order):
    wanted, folder = whole(spec, tmp_path / "a"), tmp_path / "b"
    ledger = ResultsFile(spec, folder)
    assert ledger.update() == 0
    assert ledger.write(pooled=False) == []
    assert (folder / "results.jsonl").read_text() == ""
    for done, number in enumerate(order, 1):
        cell = list_cells(spec, folder)[number]
        finish(cell)
        assert ledger.update() == done
        finished = {(c.victim.title(), c.seed) for c in list_cells(spec, folder) if c.done}
        rows = ledger.make_rows(pooled=False)
        assert {(row.victim, row.seed) for row in rows} == finished
        assert rows == [row for row in wanted.make_rows(pooled=False) if (row.victim, row.seed) in finished]
    assert ledger.make_rows(pooled=True) == wanted.make_rows(pooled=True)
    wanted.write(pooled=True)
    assert ledger.write(pooled=True) == results.read_results(folder / "results.jsonl")
    assert (folder / "results.jsonl").read_bytes() == (tmp_path / "a" / "results.jsonl").read_bytes()


def test_rows_are_those_of_the_evidence(spec, tmp_path):
    ledger = whole(spec, tmp_path)
    for cell, attack, scenario in itertools.product(list_cells(spec, tmp_path), ATTACKS, SCENARIOS):
        where = results.RowLabels(
            experiment="kept",
            dataset="synthetic",
            victim=cell.victim.title(),
            attack=attack,
            defense="none",
            scenario=scenario,
            seed=None,
        )
        wanted = ranking_rows.make_seed_rows(where, cell.seed, record(cell, attack, scenario), (5,))
        here = (cell.victim.title(), attack, scenario, cell.seed)
        found = [r for r in ledger.make_rows(pooled=False) if (r.victim, r.attack, r.scenario, r.seed) == here]
        assert found == [row for row in wanted if row.attack == attack]


def test_the_clean_model_is_told_once(spec, tmp_path):
    """Here each attack brings another clean model: the first one's counts."""
    rows = whole(spec, tmp_path).make_rows(pooled=False)
    found = {(r.victim, r.scenario, f"{r.metric}_clean", r.seed): r.value for r in rows if r.attack == "none"}
    assert len(found) == len([row for row in rows if row.attack == "none"]) == 2 * 2 * 3 * 3
    first = [row for row in rows if (row.attack, row.group) == ("late", "all")]
    assert found.items() <= {(row.victim, row.scenario, row.metric, row.seed): row.value for row in first}.items()


# What is made, and when


@pytest.fixture
def made(monkeypatch):
    """List what is read, and the rows that are made: of a seed, or with the number of seeds pooled."""
    calls = []
    decode, seed_rows, pooled_rows = (
        RankingTask.decode_record,
        ranking_rows.make_seed_rows,
        ranking_rows.make_pooled_rows,
    )

    def read(labels, columns):
        calls.append((labels.attack, labels.scenario))
        return decode(labels, columns)

    def single(where, seed, *rest):
        calls.append((where.victim, where.attack, where.scenario, seed))
        return seed_rows(where, seed, *rest)

    def pooled(where, records, ks):
        calls.append((where.victim, where.attack, where.scenario, "pooled", len(records)))
        return pooled_rows(where, records, ks)

    monkeypatch.setattr(RankingTask, "decode_record", read)
    monkeypatch.setattr(ranking_rows, "make_seed_rows", single)
    monkeypatch.setattr(ranking_rows, "make_pooled_rows", pooled)
    return calls


def test_rows_of_a_seed_are_made_once(spec, tmp_path, made):
    ledger = ResultsFile(spec, tmp_path)
    for done, cell in enumerate(list_cells(spec, tmp_path)[:4], 1):
        finish(cell)
        made.clear()
        ledger.update()
        before = ledger.make_rows(pooled=False)
        here = [(attack, scenario) for attack in ATTACKS for scenario in SCENARIOS]
        here += [(cell.victim.title(), attack, scenario, cell.seed) for attack in ATTACKS for scenario in SCENARIOS]
        assert made == here, "those of the new cell and no other"
        assert ledger.update() == done
        assert ledger.make_rows(pooled=False) == ledger.write(pooled=False) == before
        assert made == here
    made.clear()
    assert [row for row in ledger.make_rows(pooled=True) if row.seed is not None] == ledger.make_rows(pooled=False)
    assert {call[3:] for call in made} == {("pooled", 3), ("pooled", 1)}
    assert len(made) == 8
    ledger.make_rows(pooled=True)
    assert len(made) == 8, "pooled rows are made once too"
    finish(list_cells(spec, tmp_path)[4])
    ledger.update()
    ledger.make_rows(pooled=True)
    assert {call[:1] + call[3:] for call in made[8 + 4 :]} == {("a", 2), ("a", "pooled", 2)}, (
        "until another seed is there"
    )


def test_pooled_rows_only_when_asked(spec, tmp_path, made):
    ledger = whole(spec, tmp_path)
    single, both = ledger.make_rows(pooled=False), ledger.make_rows(pooled=True)
    assert all(row.seed is not None and not row.metric.endswith("_over_seeds") for row in single)
    assert [row for row in both if row.seed is not None] == single
    more = [row for row in both if row.seed is None]
    assert {row.n for row in more if row.metric == "hr" and row.group == "all"} == {36}
    spread = [row for row in more if row.metric == "exposure_hr_over_seeds" and row.group == "target"]
    assert {(row.victim, row.attack, row.scenario, row.n) for row in spread} == {
        (victim, attack, scenario, 3) for victim in VICTIMS for attack in ATTACKS for scenario in SCENARIOS
    }


def test_what_one_seed_lacks_is_left_out(spec, tmp_path):
    """An attack that did not fit the data of one seed has an error there, and rows of the others."""
    for cell in list_cells(spec, tmp_path):
        unfit = (cell.victim.title(), cell.seed) == ("z", 2)
        finish(cell, ATTACKS[1:] if unfit else ATTACKS, [f"{cell.title}: unfit"] if cell.seed != 5 else [])
    ledger = ResultsFile(spec, tmp_path)
    ledger.update()
    rows = ledger.make_rows(pooled=True)
    found = {(row.victim, row.attack): {r.seed for r in rows if place_of(r) == place_of(row)} for row in rows}
    assert found["z", "late"] == {5, 9, None}
    assert found["z", "early"] == found["a", "late"] == {5, 2, 9, None}
    assert ledger.list_errors() == [f"{victim}, seed {seed}: unfit" for victim in VICTIMS for seed in (2, 9)]
    assert ledger.collect_planted() == {attack: planted(list_cells(spec, tmp_path)[0], attack) for attack in ATTACKS}


def place_of(row):
    return row.victim, row.attack


# Damage, and interrupts

DAMAGES = {
    "cell.json": ["", "{", "[]", '{"errors": [], "evidence": 3}', '{"errors": 1, "evidence": "", "plans": {}}'],
    "evidence/late+none+pretrain.safetensors": ["", "no evidence"],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name in DAMAGES for text in DAMAGES[name]])
def test_a_damaged_cell_is_told_until_it_is_mended(spec, tmp_path, name, text):
    first, second, *_ = list_cells(spec, tmp_path)
    ledger = ResultsFile(spec, tmp_path)
    finish(first)
    ledger.update()
    finish(second)
    (second.folder / name).write_text(text)
    for _ in range(2):
        with pytest.raises(UserError, match="damaged") as error:
            ledger.update()
        assert str(second.folder / name) in error.value.message
        assert f"Remove '{second.folder / 'cell.json'}'" in error.value.hint
        assert {row.seed for row in ledger.make_rows(pooled=False)} == {5}
    finish(second)
    assert ledger.update() == 2
    assert {row.seed for row in ledger.make_rows(pooled=False)} == {5, 2}


def test_evidence_that_is_gone_is_told(spec, tmp_path):
    whole(spec, tmp_path)
    (list_cells(spec, tmp_path)[3].folder / "evidence/late+none+b.safetensors").unlink()
    with pytest.raises(UserError, match="missing"):
        ResultsFile(spec, tmp_path).update()


@pytest.mark.parametrize("moment", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_results_after_an_interrupt(spec, tmp_path, monkeypatch, moment):
    """While a run goes on its file has rows of single seeds; when it ends, however it ends, those of all."""
    monkeypatch.setattr(run_folder, "RESULTS_SHARE", 1e9)  # however long the results take
    kept = tmp_path / "run" / "results.jsonl"
    left, seen = [moment], []

    def run_cell(cell, *rest):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        finish(cell)

    monkeypatch.setattr(executor, "run_cell", run_cell)
    with pytest.raises(KeyboardInterrupt):
        run(
            spec,
            tmp_path / "run",
            device="cpu",
            cell_done=lambda *now: seen.append(kept.exists() and results.read_results(kept)),
        )
    done = [cell for cell in list_cells(spec, tmp_path / "run") if cell.done]
    assert len(done) == moment
    ledger = ResultsFile(spec, tmp_path / "run")
    ledger.update()
    assert len(seen) == moment + 1
    assert seen[-1] == ledger.make_rows(pooled=False)
    assert results.read_results(kept) == ledger.make_rows(pooled=True) != seen[-1]
    left[0] = 6 - moment
    outcome = run(spec, tmp_path / "run", device="cpu", resume=True)
    assert left[0] == 0
    wanted = whole(spec, tmp_path / "whole")
    assert outcome.rows == results.read_results(kept) == wanted.write(pooled=True)
    assert kept.read_bytes() == (tmp_path / "whole" / "results.jsonl").read_bytes()
