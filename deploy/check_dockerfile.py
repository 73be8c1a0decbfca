"""Run the steps of the Dockerfile without Docker, and ask the service that comes of it.

    python deploy/check_dockerfile.py [--keep FOLDER]

Where no Docker is, this does what its lines say in a folder of its own: it copies what `.dockerignore` lets through,
runs the commands of the first stage in a fresh environment, and starts the entry point with the variables of the
second, as the user `nobody` if this process may. Then it runs the health check, asks for a verdict with a token and
without, and ends the service by the stop signal. The line that adds a user is left out, since it would change this
machine. What remains untried is what Docker itself does: layers, volumes, ports, and the base image.
"""

import argparse
import fnmatch
import json
import os
import pwd
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
LEFT_OUT = ("useradd",)
"""Commands that would change the machine."""
TOKEN = "a-token-of-forty-characters-for-this-test"


class Step(NamedTuple):
    """An instruction of a Dockerfile."""

    word: str
    """Such as `RUN`."""
    text: str
    """What follows it, with lines joined."""


def read_stages(path: Path) -> list[list[Step]]:
    """Return the instructions of each stage."""
    stages: list[list[Step]] = []
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        word, _, text = line.partition(" ")
        if word == "FROM":
            stages.append([])
        stages[-1].append(Step(word, text.strip()))
    return stages


def find_steps(stage: list[Step], word: str) -> list[str]:
    """Return what follows a word, in order."""
    return [step.text for step in stage if step.word == word]


def list_context(root: Path) -> Iterator[Path]:
    """Yield the files of the repository that are sent to Docker."""
    ignored = (root / "deploy" / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()

    def is_left_out(path: str) -> bool:
        parts = path.split("/")
        heads = ["/".join(parts[: nth + 1]) for nth in range(len(parts))]
        return any(fnmatch.fnmatch(head, line.removeprefix("**/")) for line in ignored for head in heads) or any(
            line.startswith("**/") and line[3:] in parts for line in ignored
        )

    for folder, names, files in os.walk(root):
        inside = Path(folder).relative_to(root)
        names[:] = [name for name in names if not is_left_out((inside / name).as_posix())]
        yield from (inside / file for file in files if not is_left_out((inside / file).as_posix()))


class Image:
    """A folder that stands for the root of an image.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        self.environment |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "HTTP"))}

    def move(self, text: str) -> str:
        """Return a text whose paths lie in the folder."""
        return re.sub(r"(?<![\w.])/(venv|src|log|cache)\b", rf"{self.folder}/\1", text)

    def set_variables(self, text: str) -> None:
        """Take the variables of an `ENV` line."""
        for word in shlex.split(self.move(text)):
            name, _, value = word.partition("=")
            self.environment[name] = value.replace("$PATH", self.environment["PATH"])

    def build(self, stage: list[Step]) -> None:
        """Run the first stage."""
        arguments = dict(text.partition("=")[::2] for text in find_steps(stage, "ARG"))
        place = self.folder
        for step in stage:
            if step.word == "WORKDIR":
                place = Path(self.move(step.text))
                place.mkdir()
            elif step.word == "ENV":
                self.set_variables(step.text)
            elif step.word == "COPY":
                for file in [Path(step.text.split()[0])] if step.text != ". ." else list_context(ROOT):
                    (place / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(ROOT / file, place / file)
            elif step.word == "RUN":
                command = self.move(step.text)
                for name, value in arguments.items():
                    command = command.replace(f"${{{name}}}", value.strip('"'))
                print(f"RUN {step.text}", flush=True)
                subprocess.run(["sh", "-c", command], cwd=place, env=self.environment, check=True)


def ask(address: str, token: str | None = None, title: str | None = None) -> tuple[int, str]:
    """Return what the service answers."""
    body = None if title is None else json.dumps({"title": title}).encode()
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(address, body, headers), timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def choose_user(named: str) -> tuple[str, list[str]]:
    """Return as whom the service runs, and the words before a command that make it so.

    As `nobody`, if this process may say so. Python may lie where only its owner looks, so it may read anything.
    """
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        return f"this one ({named} in the image)", []
    able = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return "nobody", ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *able]


def refuses_elsewhere(image: Image, lower: list[str]) -> bool:
    """Tell whether the service's user can't write into the environment."""
    tried = ["sh", "-c", f"echo > {image.folder}/venv/written"]
    return subprocess.run([*lower, *tried], capture_output=True, check=False).returncode != 0


def serve(image: Image, stage: list[Step]) -> dict[str, object]:
    """Run the second stage's entry point, and ask it."""
    for text in find_steps(stage, "ENV"):
        image.set_variables(text)
    who, lower = choose_user(find_steps(stage, "USER")[-1])
    for name in ("log", "cache"):
        shutil.rmtree(image.folder / name, ignore_errors=True)
        (image.folder / name).mkdir()
        if lower:
            os.chown(image.folder / name, pwd.getpwnam("nobody").pw_uid, -1)
    tokens = image.folder / "tokens.txt"
    tokens.write_text(f"shop {TOKEN}\n", encoding="utf-8")
    tokens.chmod(0o644)
    words = json.loads(find_steps(stage, "ENTRYPOINT")[-1])
    words += ["--detector", "character_rules", "--log", str(image.folder / "log"), "--token-file", str(tokens)]
    program = shutil.which(words[0], path=image.environment["PATH"])
    assert program is not None and str(image.folder) in program, f"{words[0]} is not of the image: {program}"
    words = [*lower, program, *words[1:], "--host", "0.0.0.0"]
    service = subprocess.Popen(words, env=image.environment, cwd="/")
    check = [*lower, *json.loads(find_steps(stage, "HEALTHCHECK")[-1].partition("CMD ")[2])]
    port = find_steps(stage, "EXPOSE")[-1]
    began, healthy = time.monotonic(), False
    while not healthy and time.monotonic() - began < 120:
        done = subprocess.run(check, env=image.environment, capture_output=True, check=False)
        healthy = done.returncode == 0
        time.sleep(0 if healthy else 0.5)
    seconds = time.monotonic() - began
    address = f"http://127.0.0.1:{port}"
    found = {
        "user": who,
        "writes_only_there": not lower or refuses_elsewhere(image, lower),
        "healthy": healthy,
        "seconds_until_healthy": round(seconds, 1),
        "without_token": ask(f"{address}/v1/title", title="Heat")[0],
        "with_token": ask(f"{address}/v1/title", TOKEN, "He\u200bat")[0],
        "answer": ask(f"{address}/v1/title", TOKEN, "He\u200bat")[1][:300],
        "log_files": sorted(path.name for path in (image.folder / "log").iterdir()),
    }
    service.send_signal(getattr(signal, find_steps(stage, "STOPSIGNAL")[-1]))
    found["exit_code"] = service.wait(timeout=60)
    after = subprocess.run(check, env=image.environment, capture_output=True, check=False)
    return found | {"unhealthy_when_ended": after.returncode != 0}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--keep", type=Path, help="the folder is made there and stays, and is taken again; a new one by default"
    )
    given = parser.parse_args()
    folder = given.keep or Path(tempfile.mkdtemp(prefix="cowbird-image-"))
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    try:
        first, second = read_stages(ROOT / "deploy" / "Dockerfile")
        image = Image(folder)
        if not (folder / "venv").exists():
            image.build(first)
        else:
            image.set_variables(find_steps(first, "ENV")[0])
        print("left out:", *(text for text in find_steps(second, "RUN") if any(word in text for word in LEFT_OUT)))
        found = serve(image, second)
        print(json.dumps(found, indent=1))
        if not (found["healthy"] and found["without_token"] == 401 and found["with_token"] == 200):
            sys.exit(1)
    finally:
        if given.keep is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
