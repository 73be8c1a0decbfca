"""How an attack on the command line is tried and judged: exit code, time, memory, files touched, processes left.

Everything happens in one new folder: the home, the cache, the temporary folder and the working folder of each command
lie in it. So a file that changes where none should is seen, and nothing of the user's is touched.
"""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TIMEOUT = 600.0
"""Seconds after which a command is said to hang."""
LEFT_BY_LIBRARIES = "torchinductor_"
"""The folder that torch makes in the temporary folder for what it compiles; it stays, and is not counted."""
KEY_VARIABLE, KEY = "ATTACK_SECRET", "sk-attack-7f3a91c2"
"""A secret in the environment of every command, which must not leave it."""


@dataclass
class Outcome:
    """What came of one command."""

    code: int | None
    """Its exit code; `None` if it hung and was ended."""
    seconds: float
    """How long it ran."""
    peak_mb: float
    """Most memory that it, or the largest of its children that ended, held."""
    said: str
    """Its output and errors."""


@dataclass
class Attempt:
    """One attack and what is right."""

    kind: str
    """Which kind of weakness it looks for."""
    name: str
    """What is done."""
    codes: tuple[int, ...]
    """The exit codes that are right."""
    outcome: Outcome
    """What came of it."""
    touched: tuple[str, ...] = ()
    """Files outside of `--out` that were made, changed or removed."""
    lost: int = 0
    """Rows of a catalogue or a grid that are neither in the result nor told."""
    orphans: int = 0
    """Processes that were left behind."""
    secrets: int = 0
    """How often the secret was seen where it must not be."""
    faults: tuple[str, ...] = field(default=())
    """What is wrong, in words; empty if nothing is."""


class Place:
    """A new folder in which commands run.

    Args:
        root: The folder; it must not exist.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("home", "tmp", "cache", "work"):
            (root / name).mkdir(parents=True)
        self.work = root / "work"
        self.attempts: list[Attempt] = []
        more = {"HOME": "home", "TMPDIR": "tmp", "COWBIRD_CACHE": "cache", "XDG_CACHE_HOME": "cache"}
        self.environment = os.environ | {key: str(root / name) for key, name in more.items()}
        self.environment |= {KEY_VARIABLE: KEY, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"}

    def start(self, *words: Any, shell: str = "", **more: Any) -> "subprocess.Popen[bytes]":
        """Start `cowbird` with some words; or a shell command in which `$cowbird` is the command."""
        command: Sequence[str] = [sys.executable, "-m", "cowbird", *map(str, words)]
        if shell:
            command = ["bash", "-c", f'cowbird="{sys.executable} -m cowbird"; {shell}']
        given: dict[str, Any] = {"cwd": self.work, "env": self.environment, "start_new_session": True}
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command, **(given | pipes | more))

    def call(self, *words: Any, shell: str = "", timeout: float = TIMEOUT, **more: Any) -> Outcome:
        """Run a command to its end."""
        log = self.root / "said.txt"
        with log.open("wb") as said:
            began = time.monotonic()
            process = self.start(*words, shell=shell, **({"stdout": said, "stderr": subprocess.STDOUT} | more))
            code, peak = _wait(process, timeout)
        text = log.read_bytes().decode("utf-8", "replace")
        return Outcome(code, round(time.monotonic() - began, 1), round(peak, 1), text)

    def list_files(self, but: Iterable[Path] = ()) -> dict[str, str]:
        """Return the hash of each file outside of some folders and of the caches, by its path."""
        skipped = [self.root / "cache", self.root / "said.txt", *but]
        return {
            str(path.relative_to(self.root)): _sum_up(path)
            for path in sorted(self.root.rglob("*"))
            if not any(path == each or each in path.parents for each in skipped)
            and not any(part.startswith(LEFT_BY_LIBRARIES) for part in path.parts)
        }

    def attack(
        self,
        kind: str,
        name: str,
        codes: tuple[int, ...],
        *words: Any,
        out: Iterable[Path] = (),
        check: Callable[[Outcome], list[str]] | None = None,
        most_mb: float = 1000.0,
        **more: Any,
    ) -> Attempt:
        """Run a command, and judge what came of it.

        Args:
            kind: See `Attempt`.
            name: See `Attempt`.
            codes: See `Attempt`.
            words: The words of the command.
            out: What it may write.
            check: Tells what else is wrong, in words.
            most_mb: Most memory that it may take.
            more: What `call` takes.
        """
        before = self.list_files(out)
        outcome = self.call(*words, **more)
        after = self.list_files(out)
        touched = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
        return self.record(kind, name, codes, outcome, touched, check(outcome) if check else [], most_mb)

    def record(
        self,
        kind: str,
        name: str,
        codes: tuple[int, ...],
        outcome: Outcome,
        touched: Sequence[str] = (),
        faults: Sequence[str] = (),
        most_mb: float = 1000.0,
        **counts: int,
    ) -> Attempt:
        """Keep what came of an attack, and print it."""
        found = [*faults]
        if outcome.code is None:
            found.append(f"hung for {outcome.seconds:.0f} s")
        elif outcome.code not in codes:
            found.append(f"exit {outcome.code}")
        if "Traceback (most recent call last)" in outcome.said:
            found.append("a traceback")
        if KEY in outcome.said:
            counts["secrets"] = counts.get("secrets", 0) + 1
        if outcome.peak_mb > most_mb:
            found.append(f"{outcome.peak_mb:.0f} MB")
        found += [f"touched {touched[0]}"] if touched else []
        found += [f"{count} {what}" for what, count in counts.items() if count]
        attempt = Attempt(kind, name, codes, outcome, tuple(touched), faults=tuple(found), **counts)
        self.attempts.append(attempt)
        state = "; ".join(found) or "as it should be"
        print(f"{kind:12} {name:60} exit {outcome.code} {outcome.seconds:5.1f} s {outcome.peak_mb:5.0f} MB  {state}")
        if found:
            print("    " + "\n    ".join(outcome.said.strip().splitlines()[-4:]))
        sys.stdout.flush()
        return attempt


def _wait(process: "subprocess.Popen[bytes]", timeout: float) -> tuple[int | None, float]:
    """Wait for a process, and end its group after a time; return its code and its peak memory in MB."""
    end = time.monotonic() + timeout
    while True:
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
        if pid:
            code = process.returncode = os.waitstatus_to_exitcode(status)
            return (128 - code if code < 0 else code), used.ru_maxrss / 1024
        if time.monotonic() > end:
            os.killpg(process.pid, signal.SIGKILL)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            return None, used.ru_maxrss / 1024
        time.sleep(0.02)


def _sum_up(path: Path) -> str:
    """Return what tells a file from another one."""
    if path.is_symlink():
        return f"link {path.readlink()}"
    if not path.is_file():
        return "no plain file"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def list_processes(word: str) -> list[int]:
    """Return the processes in whose command line or environment a word stands."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                held = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if word.encode() in held and state != "Z":
                found.append(int(entry.name))
    return found
