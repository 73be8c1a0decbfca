"""Attack: a path that is a pipe without a writer, a socket or a device, wherever a command takes a path."""

import os
import shutil
import socket
from pathlib import Path

from .harness import Place

SPEC = """
name = "attack"
seeds = [0]
[dataset]
name = "{source}"
{options}
[[victims]]
name = "sasrec"
epochs = 3
[[attacks]]
name = "basic_replacement"
targets = {{ count = 3 }}
"""


def attack_paths(place: Place, scanner: Path | None = None) -> None:
    """Name something that is no plain file wherever a command takes a path.

    Args:
        place: Where.
        scanner: A scanner that was fitted, to be harmed in copies; without one, empty folders stand for it.
    """
    work = place.work
    (work / "items.csv").write_text("id,title\n" + "".join(f"{n},Plain title {n}\n" for n in range(30)))
    for ending in ("csv", "csv.gz", "parquet", "jsonl", "toml", "txt", "gguf"):
        os.mkfifo(work / f"pipe.{ending}")
    os.mkfifo(work / "pipe")
    held = socket.socket(socket.AF_UNIX)
    held.bind(str(work / "socket.csv"))
    out = work / "found.csv"
    scan = ("scan", "items.csv", "--out", out)
    rules = (*scan, "--detector", "character_rules")
    for name in ("pipe.csv", "pipe.parquet", "socket.csv"):
        place.attack("paths", f"scan {name}", (2,), "scan", name, "--out", out, timeout=600)
        place.attack("paths", f"scan --reference {name}", (2,), *rules, "--reference", name, timeout=600)
    for name in ("pipe.txt", "/dev/zero"):
        place.attack("paths", f"scan --allow {name}", (2,), *rules, "--allow", name, timeout=600)
    place.attack("paths", "scan --reference pipe.csv, no fit", (2,), *scan, "--reference", "pipe.csv", timeout=600)
    for name in ("pipe.csv",):
        place.attack("paths", f"scan --out {name}", (2,), "scan", "items.csv", "--out", name,
                     "--detector", "character_rules", timeout=600)  # fmt: skip
    place.attack("paths", "scan --scanner pipe", (2,), *scan, "--scanner", "pipe", timeout=600)
    for command in ("validate", "run"):
        more = ("--out", work / "run") if command == "run" else ()
        for name in ("pipe.toml", "/dev/zero"):
            place.attack("paths", f"{command} {name}", (2,), command, name, *more, timeout=600)
    place.attack("paths", "describe spec pipe.toml", (2,), "describe", "spec", "pipe.toml", timeout=600)
    place.attack("paths", "init --out pipe.toml", (2,), "init", "tabular", "--out", "pipe.toml", timeout=600)
    place.attack(
        "paths", "init --out pipe.toml --force", (2,), "init", "tabular", "--out", "pipe.toml", "--force", timeout=600
    )
    place.attack(
        "paths", "stealth --titles pipe.csv", (2,), "stealth", "--text", "5v", "--titles", "pipe.csv", timeout=600
    )
    for name in ("pipe.gguf", "pipe"):
        place.attack("paths", f"stealth --llm {name}", (2,), "stealth", "--text", "5v", "--titles", "items.csv",
                     "--llm", name, timeout=600)  # fmt: skip
    place.attack("paths", "fit-scanner pipe.csv", (2,), "fit-scanner", "pipe.csv", "--out", work / "fit", timeout=600)
    _attack_specs(place)
    _attack_run_folders(place)
    _attack_scanners(place, scanner)
    held.close()


def _attack_specs(place: Place) -> None:
    """Have a spec name pipes as data."""
    for source, options in (
        ("tabular", 'path = "pipe.csv"'),
        ("tabular", 'path = "pipe.parquet"'),
        ("tabular", 'path = "items.csv"\nuser_column="id"\nitem_column="id"\nitem_path = "pipe.csv"'),
        ("atomic", 'path = "pipe"'),
        ("movielens_1m", 'path = "pipe"'),
        ("atomic", 'path = "folder"'),
    ):
        folder = place.work / "folder"
        folder.mkdir(exist_ok=True)
        if not (folder / "folder.inter").exists():
            os.mkfifo(folder / "folder.inter")
        spec = place.work / "data.toml"
        spec.write_text(SPEC.format(source=source, options=options))
        name = f"{source} {options.rpartition('=')[2].strip()}"
        place.attack("paths", f"validate, {name}", (2,), "validate", spec, timeout=600)


def _attack_run_folders(place: Place) -> None:
    """Put pipes where a run's own files stand."""
    place.work.joinpath("small.toml").write_text(SPEC.format(source="synthetic", options="users = 60\nitems = 40"))
    for name in ("spec.json", "results.jsonl", "lock", "cells"):
        folder = place.work / "run-piped"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        os.mkfifo(folder / name)
        place.attack("paths", f"run --resume, {name} is a pipe", (2, 3, 0), "run", "small.toml", "--out", folder,
                     "--resume", timeout=600, out=[folder])  # fmt: skip
        shutil.rmtree(folder, ignore_errors=True)


def _attack_scanners(place: Place, scanner: Path | None) -> None:
    """Put pipes where a scanner's files stand."""
    names = [path.name for path in scanner.iterdir()] if scanner else ["scanner.json"]
    for name in names:
        folder = place.work / "scanner-piped"
        shutil.rmtree(folder, ignore_errors=True)
        if scanner:
            shutil.copytree(scanner, folder)
            (folder / name).unlink()
        else:
            folder.mkdir()
        os.mkfifo(folder / name)
        place.attack("paths", f"scan --scanner, {name} is a pipe", (2,), "scan", "items.csv", "--out",
                     place.work / "found.csv", "--scanner", folder, timeout=600)  # fmt: skip
        shutil.rmtree(folder, ignore_errors=True)
