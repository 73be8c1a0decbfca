"""Every code block of every page: Python runs, TOML is a valid spec, and commands exist with their options."""

import re
import shlex
import tomllib
from pathlib import Path

import polars as pl
import pytest
import typer
from typer.testing import CliRunner

from cowbird.cli.app import app
from cowbird.experiments.profiles import apply_profile
from cowbird.experiments.run import run
from cowbird.experiments.spec import parse_spec
from cowbird.inspection.zoo.folder import name_model
from cowbird.inspection.zoo.recipe import ZooRecipe
from doubles.blocks import REPOSITORY, list_blocks, run_python_blocks

DOCS = REPOSITORY / "docs"
PAGES = sorted(
    str(path.relative_to(REPOSITORY))
    for path in (*REPOSITORY.glob("*.md"), *DOCS.rglob("*.md"))
    if "_build" not in path.parts
)
GROUP = typer.main.get_command(app)
SPEC = {
    "name": "page",
    "dataset": {"name": "movielens_100k"},
    "split": {"cold_fraction": 0.3},
    "victims": [{"name": "sasrec", "epochs": 2}],
    "attacks": [{"name": "basic_replacement", "rate": 0.05}],
    "scenarios": [{"name": "direct"}],
}
"""What a page that shows a part of a spec leaves out."""
RUN_ELSEWHERE = {"docs/how-to/python.md"}
"""Pages whose Python needs files and doubles; `tests/api` runs them."""
INLINE = re.compile(r"(?<!`)`(cowbird [a-z][^`]*)`(?!`)")


def find_commands(page):
    """Return the lines that are typed in the console blocks of a page."""
    found = []
    for block in list_blocks(page, "console"):
        text = block.text.replace("\\\n", " ")
        found += [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]
    return found


def write_files(page, folder):
    """Write the Python blocks of a page that begin with a file's name; return the names without their suffix."""
    names = []
    for block in list_blocks(page, "python"):
        if match := re.match(r"# (\w+)\.py\n", block.text):
            (folder / f"{match[1]}.py").write_text(block.text, encoding="utf-8")
            names.append(match[1])
    return names


def check_specs(words):
    """Assert that a spec that a command names is there, with its profile."""
    for word in words:
        if word.startswith("experiments/"):
            table = tomllib.loads((REPOSITORY / word).read_text(encoding="utf-8"))
            profile = words[words.index("--profile") + 1] if "--profile" in words else ""
            parse_spec(apply_profile(table, "quick" if "--quick" in words else profile))


@pytest.mark.parametrize("page", [page for page in PAGES if list_blocks(page, "console")])
def test_commands_of_console_blocks_exist(page):
    commands = find_commands(page)
    assert commands, "a console block shows what is typed, after a dollar"
    for line in commands:
        program, *words = shlex.split(line, comments=True)
        if program == "cowbird":
            GROUP.commands[words[0]].make_context(words[0], words[1:])  # raises where an option does not exist
            check_specs(words)
        elif program == "make":
            named = re.findall(r"^([a-z -]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
            assert words[0] in " ".join(named).split(), line
        elif program in ("python", "torchrun"):
            assert (REPOSITORY / next(word for word in words if word.endswith(".py"))).is_file(), line
        else:
            assert program in ("pip", "git", "cd", "pytest", "sbatch"), f"not known how to check: {line}"


@pytest.mark.parametrize("page", [page for page in PAGES if INLINE.search((REPOSITORY / page).read_text("utf-8"))])
def test_commands_in_the_text_exist(page):
    for found in INLINE.findall((REPOSITORY / page).read_text(encoding="utf-8")):
        words = shlex.split(found.replace("\n", " ").replace("…", ""), comments=True)[1:]
        if words[0].startswith("--"):
            continue
        command = GROUP.commands[words[0]]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, found
        check_specs(words)


@pytest.mark.slow
def test_light_commands_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = {line for page in PAGES for line in find_commands(page)}
    for line in sorted(lines):
        words = shlex.split(line, comments=True)
        if words[0] == "cowbird" and words[1] in ("list", "describe", "init"):
            for made in tmp_path.glob("*.toml"):
                made.unlink()
            result = CliRunner().invoke(app, words[1:])
            assert result.exit_code == 0, f"{line}: {result.output}"


def test_the_scan_by_rules_of_the_readme_finds_what_is_hidden(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    titles = [f"A plain title {word}" for word in ("one", "two", "three")] + ["Toy Story\u200b"]
    rows = [f"{row},{title}" for row, title in enumerate(titles)]
    Path("items.csv").write_text("\n".join(["id,title", *rows]), encoding="utf-8")
    (line,) = [line for line in find_commands("README.md") if "--detector" in line]
    assert CliRunner().invoke(app, shlex.split(line, comments=True)[1:]).exit_code == 1, "titles are flagged"
    assert pl.read_csv("findings.csv")["flagged"].to_list() == [False, False, False, True]


@pytest.mark.parametrize("page", [page for page in PAGES if list_blocks(page, "python") and page not in RUN_ELSEWHERE])
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_python_blocks(page)


@pytest.mark.parametrize("page", [page for page in PAGES if list_blocks(page, "toml")])
def test_toml_blocks_are_specs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = write_files(page, tmp_path)
    for block in list_blocks(page, "toml"):
        table = tomllib.loads(block.text)
        if "plants" in table:
            ZooRecipe.model_validate(table).make_victims()
        else:
            parse_spec(SPEC | table, allow_plugins=bool(own))


def test_the_model_to_practice_on_is_the_planted_one():
    page = "docs/how-to/inspect_model.md"
    (block,) = list_blocks(page, "toml")
    models = ZooRecipe.model_validate(tomllib.loads(block.text)).list_models()
    planted = [name_model(model) for model in models if model.plant is not None]
    assert planted == ["m002"]
    assert f"practice/models/{planted[0]}.safetensors" in (REPOSITORY / page).read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("page", ["own_attack", "own_defense", "own_victim"])
def test_what_a_page_adds_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert write_files(f"docs/how-to/{page}.md", tmp_path)
    (block,) = list_blocks(f"docs/how-to/{page}.md", "toml")
    table = SPEC | tomllib.loads(block.text)
    for victim in table["victims"]:
        victim.update({"epochs": 1} if "epochs" in victim else {})
    spec = parse_spec(table, allow_plugins=True)
    outcome = run(spec, tmp_path / "run", device="cpu")
    assert outcome.done == outcome.total
    assert not outcome.errors
    assert any(row.metric == "exposure_hr" and row.value is not None for row in outcome.rows)


def test_the_readme_is_short():
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_every_room_is_in_the_architecture():
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    rooms = [
        path.stem
        for path in (REPOSITORY / "src" / "cowbird").iterdir()
        if not path.name.startswith("_") and (path.is_dir() or path.suffix == ".py")
    ]
    assert [room for room in rooms if f"`{room}`" not in text] == []


def test_links_lead_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:\s]+)", (REPOSITORY / page).read_text(encoding="utf-8")):
            assert ((REPOSITORY / page).parent / link).exists(), f"{page}: {link}"


def test_no_path_of_a_machine_stands_in_a_page():
    for page in PAGES:
        text = (REPOSITORY / page).read_text(encoding="utf-8")
        assert re.findall(r"(?<![\w.:/*~\])>!-])/[a-z]+/", text) == [], page
