"""What a start costs beyond Python itself: fresh processes in turn, so that a busy machine slows all alike.

    python benchmarks/import_time.py --runs 10 --against OTHER/src --out docs/results/import_time.json

Told are `import cowbird`, the first use of a name that needs torch, and commands that need no model: medians of the
processor seconds of a process, with its start, and which large libraries a command loads. With `--against`, each is
measured in turn with the sources of another version.
"""

import argparse
import json
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE = {"python": "pass", "import cowbird": "import cowbird", "cowbird.run": "import cowbird; cowbird.run"}
"""What a process does: nothing, the import, and the first use of a name that needs torch."""
COMMANDS = (
    "--help",
    "list",
    "list attacks",
    "describe attack badrec",
    "validate basic_replacement",
    "peek docs/results/demo.csv",
    "table docs/results/demo.csv",
    "compare docs/results/demo.csv docs/results/demo_one_thread.csv",
    "report docs/results/demo.csv --out FOLDER/report.html",
)
"""Commands that need no model."""
LIBRARIES = ("torch", "polars", "pyarrow", "numpy", "pydantic", "transformers")


def spend(words: list[str], source: Path) -> float:
    """Return the processor seconds of a fresh process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def list_loaded(words: list[str], source: Path) -> list[str]:
    """Return which large libraries a process loads."""
    environment = os.environ | {"PYTHONPATH": str(source)}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    return [name for name in LIBRARIES if name in loaded]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--against", type=Path, help="sources of another version, such as a checkout's src")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    sources = {"now": ROOT / "src"} | ({} if options.against is None else {"before": options.against.resolve()})
    with tempfile.TemporaryDirectory() as folder:
        jobs = {name: ["-c", code] for name, code in CODE.items()}
        jobs |= {
            f"cowbird {command}": ["-m", "cowbird", *command.replace("FOLDER", folder).split()] for command in COMMANDS
        }
        seconds = {name: {version: [] for version in sources} for name in jobs}
        loaded = {
            name: {version: list_loaded(words, at) for version, at in sources.items()} for name, words in jobs.items()
        }
        for _ in range(options.runs):
            for name, words in jobs.items():
                for version, source in sources.items():
                    seconds[name][version].append(spend(words, source))
    rows = {
        name: {
            version: {"processor_seconds": round(statistics.median(times), 2), "loads": loaded[name][version]}
            for version, times in versions.items()
        }
        for name, versions in seconds.items()
    }
    made = {
        "command": f"python benchmarks/import_time.py {shlex.join(sys.argv[1:])}",
        "python": platform.python_version(),
    }
    made |= {"runs": options.runs, "processors": os.cpu_count(), "load": round(os.getloadavg()[0], 1), "starts": rows}
    text = json.dumps(made, indent=1)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
