"""Attack: killed work, two writers, closed pipes and full disks; nothing may be lost, and nobody left behind."""

import csv
import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .harness import Outcome, Place, list_processes
from .pipes import SPEC

SECONDS_FOR_ORPHANS = 3.0
"""Within what time the workers of a killed command end."""
SMALL = SPEC.format(source="synthetic", options="users = 200\nitems = 60").replace("seeds = [0]", "seeds = [0, 1, 2]")
TITLES = 8_000


def attack_kills(place: Place) -> None:
    """Kill runs and scans in the midst of their work, and go on with them."""
    spec = place.work / "small.toml"
    spec.write_text(SMALL)
    whole = place.work / "run-whole"
    first = place.attack("kills", "run, undisturbed", (0,), "run", spec, "--out", whole, "--device", "cpu", out=[whole])
    _kill_and_resume(
        place, "run --jobs 2", ("run", spec, "--device", "cpu", "--jobs", "2"), place.work / "run-killed",
        (0.5, first.outcome.seconds / 2),
        lambda out: _compare_rows(whole / "results.jsonl", out / "results.jsonl"), resume=("--resume",),
    )  # fmt: skip
    _make_titles(place.work / "many.csv", TITLES)
    scan = ("scan", "many.csv", "--detector", "character_rules", "--chunk", "256", "--quiet")
    found = place.work / "whole.csv"
    first = place.attack("kills", "scan, undisturbed", (0, 1), *scan, "--out", found, out=[found])
    _kill_and_resume(
        place, "scan --workers 2", (*scan, "--workers", "2"), place.work / "killed.csv",
        (0.5, first.outcome.seconds / 1.3), lambda out: _compare_rows(found, out),
    )  # fmt: skip


def _kill_and_resume(
    place: Place, name: str, words: Sequence[Any], out: Path, moments: Sequence[float], compare: Any,
    resume: Sequence[str] = (),
) -> None:  # fmt: skip
    """Kill a command at some moments, count who is left, and have it go on to its end."""
    for after in moments:
        again = resume if out.exists() else ()
        process = place.start(*words, "--out", out, *again, stdout=subprocess.DEVNULL)
        time.sleep(after)
        began = time.monotonic()
        process.send_signal(signal.SIGKILL)
        process.wait()
        orphans = _count_left(place, SECONDS_FOR_ORPHANS)
        done = Outcome(9, round(time.monotonic() - began, 1), 0.0, "")
        place.record("kills", f"{name}, killed after {after:.1f} s", (9,), done, orphans=orphans)
    outcome = place.call(*words, "--out", out, *(resume if out.exists() else ()))
    place.record("kills", f"{name}, gone on with", (0, 1), outcome, lost=compare(out))


def _count_left(place: Place, seconds: float) -> int:
    """Return how many processes of a place are left after some time; they are ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and list_processes(str(place.root)):
        time.sleep(0.05)
    left = list_processes(str(place.root))
    for number in left:
        os.kill(number, signal.SIGKILL)
    return len(left)


def _compare_rows(one: Path, other: Path) -> int:
    """Return in how many lines two files differ; order does not count."""
    if not other.exists():
        return len(one.read_text().splitlines())
    return len(set(one.read_text().splitlines()) ^ set(other.read_text().splitlines()))


def _make_titles(path: Path, count: int) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("title",), *((f"Red Harbor number {nth}",) for nth in range(count))])


def attack_two_writers(place: Place) -> None:
    """Start two commands on one folder at once; one works, the other is told, and no row is lost."""
    spec = place.work / "small.toml"
    spec.write_text(SMALL)
    whole = place.work / "run-whole"
    if not whole.exists():
        place.call("run", spec, "--out", whole, "--device", "cpu")
    for nth in range(3):
        out = place.work / f"run-both-{nth}"
        words = ("run", spec, "--out", out, "--device", "cpu", "--resume")
        both = [place.start(*words, stdout=subprocess.DEVNULL) for _ in range(2)]
        codes = sorted(process.wait() for process in both)
        faults = [] if codes in ([0, 2], [0, 0]) else [f"exits {codes}"]
        lost = _compare_rows(whole / "results.jsonl", out / "results.jsonl")
        place.record(
            "writers", f"two runs of one folder, {nth + 1}", (0,), Outcome(0, 0.0, 0.0, ""), [], faults, lost=lost
        )
        shutil.rmtree(out, ignore_errors=True)
    _make_titles(place.work / "many.csv", TITLES // 4)
    scan = ("scan", "many.csv", "--detector", "character_rules", "--chunk", "64", "--quiet", "--out", "both.csv")
    both = [place.start(*scan, stdout=subprocess.DEVNULL) for _ in range(2)]
    codes = sorted(process.wait() for process in both)
    rows = len((place.work / "both.csv").read_text().splitlines()) - 1
    faults = [] if codes in ([0, 2], [0, 0], [1, 2], [1, 1]) else [f"exits {codes}"]
    place.record("writers", "two scans of one file", (0,), Outcome(0, 0.0, 0.0, ""), [], faults,
                 lost=abs(TITLES // 4 - rows))  # fmt: skip


def attack_closed_pipes(place: Place) -> None:
    """Close the reader of each command's output and errors at once; the exit code stays."""
    work = place.work
    (work / "small.toml").write_text(SMALL.replace("[0, 1, 2]", "[0]"))
    (work / "items.csv").write_text(
        "title\n" + "".join(f"Plain title {n}\n" for n in range(60)) + "V\u200bisible\n" * 3
    )
    run = ("run", "small.toml", "--device", "cpu", "--out", "run-pipe")
    scan = ("scan", "items.csv", "--detector", "character_rules", "--out", "found.csv")
    commands = {
        "list": (("list",), 0), "describe": (("describe", "attack", "badrec"), 0), "--help": (("--help",), 0),
        "validate": (("validate", "small.toml"), 0), "assets": (("assets", "--list"), 0), "scan": (scan, 1),
        "scan --json": ((*scan, "--json"), 1), "init": (("init", "tabular", "--out", "new.toml", "--force"), 0),
        "run": (run, 0), "stealth": (("stealth",), 2), "fit-scanner": (("fit-scanner", "no.csv", "--out", "x"), 2),
        "demo": (("demo", "--seeds", "x"), 2),
    }  # fmt: skip
    for (name, (words, code)), both in itertools.product(commands.items(), (True,)):
        shutil.rmtree(work / "run-pipe", ignore_errors=True)
        reader, writer = os.pipe()
        os.close(reader)
        errors = writer if both else subprocess.DEVNULL
        place.attack("pipes", f"{name}, {'both closed' if both else 'output closed'}", (code,), *words, stdout=writer,
                     stderr=errors, out=[work])  # fmt: skip
        os.close(writer)


def attack_full_disk(place: Place) -> None:
    """Scan and run on a disk of a few kilobytes, then go on with room; needs to be root."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        print("full disk: left out, for it needs root")
        return
    work, disk = place.work, place.root / "disk"
    disk.mkdir()
    (work / "small.toml").write_text(SMALL.replace("[0, 1, 2]", "[0, 1]"))
    _make_titles(work / "many.csv", TITLES // 4)
    scan = ("scan", "many.csv", "--detector", "character_rules", "--chunk", "64", "--quiet")
    run = ("run", "small.toml", "--device", "cpu")
    place.call(*scan, "--out", "roomy.csv")
    place.call(*run, "--out", "roomy")
    for name, words, out, size in (
        ("scan", scan, disk / "found.csv", "48k"), ("scan, late", scan, disk / "found.csv", "300k"),
        ("run", run, disk / "run", "64k"), ("run, late", run, disk / "run", "400k"),
    ):  # fmt: skip
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], check=False).returncode:
            print("full disk: left out, for nothing can be mounted here")
            return
        try:
            place.attack("disk", f"{name}, {size}", (2, 3), *words, "--out", out, out=[disk])
            subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
            again = ("--resume",) if "run" in name and out.exists() else ()
            outcome = place.call(*words, "--out", out, *again)
            whole, made = (
                (work / "roomy/results.jsonl", out / "results.jsonl") if "run" in name else (work / "roomy.csv", out)
            )
            place.record("disk", f"{name}, gone on with room", (0, 1), outcome, lost=_compare_rows(whole, made))
        finally:
            subprocess.run(["umount", disk], check=False)
