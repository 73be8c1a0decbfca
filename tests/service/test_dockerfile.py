"""The Dockerfile says what the service is; `deploy/check_dockerfile.py` runs its steps where no Docker is."""

import importlib.util
import json
from pathlib import Path

import typer.main

from cowbird.cli.app import app

DEPLOY = Path(__file__).parents[2] / "deploy"


def load_check():
    spec = importlib.util.spec_from_file_location("check_dockerfile", DEPLOY / "check_dockerfile.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check = load_check()
FIRST, SECOND = check.read_stages(DEPLOY / "Dockerfile")


def find_options():
    command = typer.main.get_command(app).commands["serve"]
    return {name: option for option in command.params for name in option.opts}


def test_the_service_runs_as_an_ordinary_user_that_may_write_to_its_volumes_alone():
    assert check.find_steps(SECOND, "USER") == ["cowbird"]
    words = [step.word for step in SECOND]
    assert words.index("USER") < words.index("ENTRYPOINT")
    made = next(text for text in check.find_steps(SECOND, "RUN") if "useradd" in text)
    volumes = json.loads(check.find_steps(SECOND, "VOLUME")[0])
    assert made.endswith(f"chown cowbird {volumes[1]} {volumes[0]}")


def test_port_health_check_and_entry_point_are_the_command_s():
    assert json.loads(check.find_steps(SECOND, "ENTRYPOINT")[0]) == ["cowbird", "serve"]
    options = find_options()
    port = check.find_steps(SECOND, "EXPOSE")[0]
    assert int(port) == options["--port"].default
    assert f"127.0.0.1:{port}/ready" in check.find_steps(SECOND, "HEALTHCHECK")[0]
    said = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").partition("FROM")[0]
    named = {word for word in said.split("cowbird-serve \\")[1].split() if word.startswith("--")}
    assert named == {"--detector", "--log", "--token-file", "--host"}
    assert named <= set(options)


def test_what_is_sent_to_docker_has_no_secrets_of_git_and_no_environments(tmp_path):
    for name in (
        ".git/config",
        ".venv/bin/python",
        ".venv-servers/x",
        "src/a/__pycache__/b.pyc",
        "src/a/b.py",
        "tests/t.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "Dockerfile.dockerignore").write_text((DEPLOY / "Dockerfile.dockerignore").read_text())
    assert sorted(map(str, check.list_context(tmp_path))) == ["deploy/Dockerfile.dockerignore", "src/a/b.py"]
    sent = set(map(str, check.list_context(DEPLOY.parent)))
    assert {"pyproject.toml", "constraints.txt", "src/cowbird/cli/serve.py", "README.md"} <= sent
