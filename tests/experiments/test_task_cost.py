"""What a new kind of victim costs: a base class and a task, in one file (`doubles/toy_task.py`), and nothing else."""

import ast
import io
import re
from pathlib import Path

import pytest
from rich.console import Console

import cowbird
from cowbird.errors import UserError
from cowbird.experiments.measures import OVER_SEEDS
from cowbird.experiments.run import run
from cowbird.experiments.spec import parse_spec
from cowbird.experiments.tasks import find_task, list_measures, list_tasks
from cowbird.report.table import summarize_run
from doubles.evidence import evidence_files
from doubles.toy_task import PLANTED, READ, ListTask, MostRead

SOURCE = Path(cowbird.__file__).parent
KINDS = (
    "Recommender",
    "PointwiseRecommender",
    "CandidateRecommender",
    "FittedRecommender",
    "FittedPointwise",
    "FittedCandidate",
    "RankingEvidence",
    "PointwiseEvidence",
    "CandidateEvidence",
)


def spec(**changes):
    table = {
        "name": "lists",
        "seeds": [0, 1],
        "dataset": {"name": "synthetic", "users": 60, "items": 40, "events_per_user": 12},
        "list_split": {"held_out": 0.2},
        "victims": [{"name": "doubles.toy_task:MostRead", "label": "list", "length": 8}],
        "attacks": [{"name": "random_profiles", "rate": 0.3, "targets": {"count": 3}}],
        "defenses": [{"name": "none"}, {"name": "character_rules"}],
        "scenarios": [{"name": "direct"}],
    }
    return parse_spec(table | changes, allow_plugins=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("lists") / "run"
    return out, run(spec(), out, device="cpu")


def test_a_fourth_task_runs_to_rows(finished):
    out, outcome = finished
    assert (outcome.errors, outcome.warnings, outcome.done) == ([], [], 2)
    found = {row.metric: row.value for row in outcome.rows if row.defense == "none" and row.seed == 0}
    assert found.keys() == {"list_read", "list_read_clean", "list_planted", "list_planted_clean"}
    assert found["list_planted"] == 3 / 8 > found["list_planted_clean"], "fake users read the targets"
    over = {row.metric for row in outcome.rows if row.seed is None}
    assert {READ[OVER_SEEDS].name, PLANTED[OVER_SEEDS].name} <= over
    assert len(evidence_files(out)) == 2 * (2 + 2), "records of two defenses, and what one flags, of two seeds"


def test_its_split_is_a_table_of_the_spec():
    assert spec().get_split(ListTask).held_out == 0.2
    assert spec().to_record()["list_split"] == {"held_out": 0.2}
    with pytest.raises(UserError, match=r"list_split\.held_out"):
        spec(list_split={"held_out": 3})
    with pytest.raises(UserError, match="no_split: this key is not known"):
        spec(no_split={})


def test_a_spec_without_such_a_victim_has_no_such_table():
    with pytest.raises(UserError, match="list_split: this key is not known"):
        spec(victims=[{"name": "sasrec"}])


@pytest.mark.slow
def test_it_is_resumed_and_grows_as_others_do(finished, tmp_path):
    run(spec(seeds=[0]), tmp_path / "run", device="cpu")
    run(spec(), tmp_path / "run", device="cpu", resume=True)
    assert (tmp_path / "run/results.jsonl").read_bytes() == (finished[0] / "results.jsonl").read_bytes()


@pytest.mark.slow
def test_it_runs_in_worker_processes(finished, tmp_path):
    run(spec(), tmp_path / "run", device="cpu", jobs=2)
    assert (tmp_path / "run/results.jsonl").read_bytes() == (finished[0] / "results.jsonl").read_bytes()


def test_its_table_is_shown(finished):
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(summarize_run(finished[1].rows))
    text = console.export_text()
    assert re.search(r"read +.*planted", text)
    assert "Read: users who read an item of the list next." in text
    assert "recall" in text, "what defenses flag and cost has a table, too"


def test_it_is_found_by_its_victim_and_listed():
    assert find_task(MostRead()) is ListTask
    assert ListTask in list_tasks()
    assert {READ, PLANTED} <= set(list_measures())
    assert not any(measure.over_seeds for measure in list_measures())


def test_a_victim_without_a_task_is_told():
    class Lost(MostRead):
        task = "doubles.nowhere"

    with pytest.raises(UserError, match=r"no task named 'doubles\.nowhere'"):
        find_task(Lost())


def _find_matches(tree):
    """Yield the names of classes that a module asks about, by `isinstance`, `issubclass` or `match`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass"):
            yield from (inner.id for inner in ast.walk(node.args[1]) if isinstance(inner, ast.Name))
        elif isinstance(node, ast.MatchClass):
            yield from (inner.id for inner in ast.walk(node.cls) if isinstance(inner, ast.Name))


@pytest.mark.slow
def test_nothing_but_tasks_and_victims_asks_what_kind_a_victim_is():
    inside = [SOURCE / "experiments/tasks", SOURCE / "victims"]
    files = [path for path in SOURCE.rglob("*.py") if not any(folder in path.parents for folder in inside)]
    assert len(files) > 100
    asked = {path: set(_find_matches(ast.parse(path.read_text()))) & set(KINDS) for path in files}
    assert {path.name: names for path, names in asked.items() if names} == {}


def test_the_search_finds_what_it_looks_for():
    text = "isinstance(x, A | B)\nmatch x:\n    case C():\n        pass\n    case _:\n        pass"
    assert set(_find_matches(ast.parse(text))) == {"A", "B", "C"}
