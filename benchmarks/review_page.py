"""How long `cowbird review` takes to open 100,000 findings, in a real Chromium.

    python benchmarks/review_page.py --out docs/results/review_page.json

Each round starts the command on a new file, so nothing is kept from before, and then again on the same file. Told are
the seconds from the start of the command until it names its address, and its processor seconds until then, for other
work may run beside it; the seconds from there until the page is ready for keys; and those of a decision by key.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import expect, sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def write_findings(path: Path, count: int) -> None:
    """Write made-up findings: three phrases in many titles, three thousand in few."""
    words = ["5v", "wonderful", "\u200b", *(f"phrase {nth}" for nth in range(3000))]
    with path.open("w", encoding="utf-8") as file:
        for nth in range(count):
            word, head = words[nth % 7 if nth % 7 < 3 else nth % len(words)], f"Blue mug {nth} "
            row = {"row": nth + 1, "id": f"i{nth}", "title": f"{head}{word} by X", "score": 5.0, "flagged": True}
            row |= {"start": len(head), "end": len(head) + len(word), "tier": "flagged", "reason": "a phrase"}
            file.write(json.dumps(row) + "\n")


def open_once(findings: Path, chromium: Any) -> dict[str, float]:
    """Start the command, open its page, and decide by a key."""
    words = [sys.executable, "-m", "cowbird", "review", str(findings)]
    began = time.perf_counter()
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    found = None
    while found is None:
        line = process.stderr.readline()
        if not line:
            raise SystemExit(f"cowbird review ended with {process.wait()}.")
        found = re.search(r"http://\S+", line)
    named = time.perf_counter()
    worked = sum(psutil.Process(process.pid).cpu_times()[:2])
    page = chromium.new_page(viewport={"width": 1200, "height": 800})
    page.goto(found[0])
    page.wait_for_selector("body[data-ready=yes]")
    ready = time.perf_counter()
    page.keyboard.press("d")
    expect(page.locator("#counts")).to_contain_text("dismissed", timeout=20_000)
    decided = time.perf_counter()
    page.close()
    process.terminate()
    process.wait(30)
    return {
        "command": named - began,
        "command_processor": worked,
        "page": ready - named,
        "decision": decided - ready,
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--findings", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next((place for place in map(shutil.which, names) if place), None)
    if browser is None:
        raise SystemExit("There is no Chromium on the path.")
    times: dict[str, list[dict[str, float]]] = {"first": [], "again": []}
    load = [round(os.getloadavg()[0], 1)]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=browser, args=FLAGS)
        for nth in range(options.rounds):
            path = Path(folder) / f"findings{nth}.jsonl"
            write_findings(path, options.findings)
            for kept in times.values():
                kept.append(open_once(path, chromium))
        chromium.close()
    medians = {
        name: {part: round(statistics.median(each[part] for each in rounds), 2) for part in rounds[0]}
        for name, rounds in times.items()
    }
    load.append(round(os.getloadavg()[0], 1))
    made = {"findings": options.findings, "rounds": options.rounds, "seconds": medians, "load": load}
    made |= {"processors": os.cpu_count()}
    options.out.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
