"""Measure what phrases gain their titles: planted phrases of ordinary words, and those that clean titles share.

    python benchmarks/scan_phrases.py --paths data/ml-1m,data/lastfm --out docs/results/scan_phrases.json

Each phrase is planted in 1 % of the titles of a catalogue, at each place in turn. The reader has no part in this: what
is told is the gain alone (`cowbird.defenses.p_scanner.company`), beside the lowest gains of clean titles' own phrases.
"""

import argparse
import json
import shlex
import sys
from pathlib import Path

import torch

from cowbird.defenses.p_scanner.company import gains, phrases
from cowbird.files import write_text
from cowbird.rng import stream
from cowbird.victims.base import pick_device
from cowbird.victims.language.llm import Llm, load
from scan_holdout import HERE, titles_of

PHRASES = ("Piano", "Sin Bob", "of Orlando", "Red Moon", "Special Offer", "Official")
POSITIONS = ("start", "middle", "end")
LOWEST = 8
"""Gains of clean phrases that are told."""


def planted(titles: list[str], phrase: str, position: str) -> list[str]:
    """Plant a phrase in 1 % of the titles."""
    rng, now = stream(0, "phrases", phrase, position), list(titles)
    rows: list[int] = rng.permutation(len(titles))[: max(10, len(titles) // 100)].tolist()
    for row in rows:
        words = now[row].split(" ")
        middle = int(rng.integers(1, max(2, len(words))))
        place = {"start": 0, "middle": middle, "end": len(words)}[position]
        now[row] = " ".join([*words[:place], phrase, *words[place:]])
    return now


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paths", default="", help="folders of atomic files beside MovieLens-100K, with commas")
    parser.add_argument("--phrases", default=",".join(PHRASES))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = pick_device(options.device)
    loaded = load(Llm(), device, torch.float32)
    told: list[dict[str, object]] = []
    for path in (HERE, *(path for path in options.paths.split(",") if path)):
        titles = list(dict.fromkeys(titles_of(path)))
        about = {"catalogue": Path(path).name, "titles": len(titles)}
        clean = sorted(
            (gain, phrase.strip()) for phrase, gain in gains(lambda: loaded, titles, phrases(titles), device).items()
        )
        told.append(about | {"phrases": len(clean), "lowest": clean[:LOWEST]})
        print(json.dumps(told[-1]), flush=True)
        for phrase in options.phrases.split(","):
            for position in POSITIONS:
                now = planted(titles, phrase, position)
                found = phrases(now)
                wanted = {key: at for key, at in found.items() if f" {phrase} " in key}
                gained = gains(lambda: loaded, now, wanted, device)
                row = {"phrase": phrase, "position": position}
                told.append(about | row | {"gains": {key.strip(): gain for key, gain in gained.items()}})
                print(json.dumps(told[-1]), flush=True)
    if options.out:
        command = f"python benchmarks/scan_phrases.py {shlex.join(sys.argv[1:])}"
        write_text(options.out, json.dumps({"command": command, "device": str(device), "rows": told}, indent=1) + "\n")


if __name__ == "__main__":
    main()
