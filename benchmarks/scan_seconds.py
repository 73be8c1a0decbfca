"""Say where the processor seconds of one ready scan go, part by part; what a part calls that is named too counts there.

    python benchmarks/scan_seconds.py --out seconds.json scan items.csv --out findings.csv --tagger cascade --quiet

What stands behind `--out FILE` is a command of Cowbird's. It runs in this process.
"""

import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

PARTS = {
    "cowbird.defenses.p_scanner.second_look:SecondLook.look": "open titles, by the language model",
    "cowbird.defenses.p_scanner.second_look:SecondLook.point": "where flagged titles are suspicious, by the same",
    "cowbird.defenses.p_scanner.ready:load_tagger": "loading the language model",
    "cowbird.defenses.p_scanner.ready:load_small_tagger": "loading the small tagger",
    "cowbird.defenses.p_scanner.small_tagger:SmallTagger.read": "all titles, by the small tagger",
    "cowbird.scanning.ready_scorer:open_ready_scanner": "learning what is usual",
}
"""Functions that are timed, and what they do."""
spent: dict[str, float] = defaultdict(float)
_inner: list[float] = []


def time_part(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that counts its processor seconds under a name, without those of parts that it calls."""

    def run(*given: Any, **more: Any) -> Any:
        began = time.process_time()
        _inner.append(0.0)
        try:
            return work(*given, **more)
        finally:
            took, inner = time.process_time() - began, _inner.pop()
            spent[name] += took - inner
            if _inner:
                _inner[-1] += took

    return run


def main() -> None:
    """Run the command and write the seconds."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command has it
    out, words = Path(sys.argv[2]), sys.argv[3:]
    began = time.process_time()
    import torch  # noqa: F401

    spent["importing torch"] = time.process_time() - began
    began = time.process_time()
    import importlib

    from cowbird.cli import app, scan  # noqa: F401

    for place, name in PARTS.items():
        module, _, path = place.partition(":")
        owner: Any = importlib.import_module(module)
        *classes, attribute = path.split(".")
        for part in classes:
            owner = getattr(owner, part)
        setattr(owner, attribute, time_part(name, getattr(owner, attribute)))
    spent["importing the rest"] = time.process_time() - began
    sys.argv = ["cowbird", *words]
    try:
        time_part("all else", app.main)()
    except SystemExit as end:
        print("exit code", end.code)
    parts = {name: round(seconds, 2) for name, seconds in sorted(spent.items(), key=lambda pair: -pair[1])}
    command = f"python benchmarks/scan_seconds.py --out {out.name} {' '.join(words)}"
    record = {"command": command, "load": os.getloadavg()[0], "all": round(sum(spent.values()), 2), "parts": parts}
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
