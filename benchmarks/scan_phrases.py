"""Measure what phrases gain their titles: planted phrases of ordinary words, and those that clean titles share.

    python benchmarks/scan_phrases.py --paths data/ml-1m,data/lastfm --out docs/results/scan_phrases.json

Six named phrases are planted in 1 % of the titles of a catalogue, at each place in turn; then phrases that are made as
the attacker who knows the scanner makes them, of words of the catalogue's own titles, six at once in different titles.
The tagger has no part in this: what is told is the gain alone (`rounds/context_gain.py`), the highest ones of planted
phrases beside the lowest of those that clean titles share, words and runs of several words apart.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from cowbird.attacks.adaptive_badrec import TEXT_TEMPLATES, extract_words
from cowbird.attacks.triggers import Trigger, TriggerPosition, plant
from cowbird.defenses.p_scanner.rounds.context_gain import Place, find_phrases, measure_gains
from cowbird.files import write_text
from cowbird.rng import stream
from cowbird.victims.base import pick_device
from cowbird.victims.language.llm import Llm, load_llm
from cowbird.victims.language.tuning import Tuning
from scan_holdout import HERE, titles_of

PHRASES = ("Piano", "Sin Bob", "of Orlando", "Red Moon", "Special Offer", "Official")
POSITIONS: tuple[TriggerPosition, ...] = ("start", "middle", "end")
TOLD = 8
"""Gains that are told: the lowest of clean phrases, the highest of planted ones."""
AT_ONCE = 6
"""Phrases that are planted in one catalogue, each in titles of its own."""
Gains = list[tuple[float, str]]
T = TypeVar("T")


def planted(
    titles: list[str], phrase: str, position: TriggerPosition, rows: list[int], rng: np.random.Generator
) -> list[str]:
    """Plant a phrase in some titles."""
    now, trigger = list(titles), Trigger(kind="custom", text=phrase, position=position)
    for row in rows:
        now[row] = plant(now[row], trigger, rng).title
    return now


def order(titles: list[str], rng: np.random.Generator) -> tuple[list[int], int]:
    """Draw an order of the titles; return it, and how many 1 % are."""
    return rng.permutation(len(titles)).tolist(), max(10, len(titles) // 100)


def drawn(titles: list[str], count: int, measure: Callable[..., dict[str, float]]) -> Gains:
    """Plant phrases of the catalogue's own words, `AT_ONCE` at a time; return what those that recur gain."""
    rng = stream(0, "phrases", "drawn")
    words = sorted(extract_words(titles))
    found: Gains = []

    def one(options: Sequence[T]) -> T:
        return options[int(rng.integers(len(options)))]

    for _ in range(0, count, AT_ONCE):
        now, (rows, size), mine = titles, order(titles, rng), list[str]()
        for nth in range(AT_ONCE):
            phrase = one(("{}", "({})", "[{}]", *TEXT_TEMPLATES)).format(one(words), one(words))
            now = planted(now, phrase, one(POSITIONS), rows[nth * size : (nth + 1) * size], rng)
            mine.append(f" {phrase} ")
        wanted = {key: at for key, at in find_phrases(now).items() if any(phrase in key for phrase in mine)}
        found += [(gain, key.strip()) for key, gain in measure(now, wanted).items()]
    return sorted(found, reverse=True)


def apart(found: Gains) -> dict[str, object]:
    """Return how many words and runs of several words there are, and the first gains of each."""
    several = {name: [] for name in ("words", "several words")}
    for gain, phrase in found:
        several["several words" if " " in phrase else "words"].append((gain, phrase))
    return {name: {"count": len(some), "gains": some[:TOLD]} for name, some in several.items()}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paths", default="", help="folders of atomic files beside MovieLens-100K, with commas")
    parser.add_argument("--phrases", default=",".join(PHRASES))
    parser.add_argument("--drawn", type=int, default=150, help="phrases of the catalogue's own words")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = pick_device(options.device)
    loaded = load_llm(Llm(), device, Tuning().pick_dtype(device))
    told: list[dict[str, object]] = []

    def measure(titles: list[str], wanted: dict[str, list[Place]]) -> dict[str, float]:
        return measure_gains(lambda: loaded, titles, wanted, device)

    for path in (HERE, *(path for path in options.paths.split(",") if path)):
        titles = list(dict.fromkeys(titles_of(path)))
        about = {"catalogue": Path(path).name, "titles": len(titles)}
        clean = sorted((gain, phrase.strip()) for phrase, gain in measure(titles, find_phrases(titles)).items())
        made = drawn(titles, options.drawn, measure)
        rows = [
            about | {"phrases": "clean", "lowest": apart(clean)},
            about | {"phrases": "drawn and planted", "highest": apart(made)},
        ]
        for phrase in options.phrases.split(","):
            for position in POSITIONS:
                rng = stream(0, "phrases", phrase, position)
                mixed, size = order(titles, rng)
                now = planted(titles, phrase, position, mixed[:size], rng)
                gained = measure(now, {key: at for key, at in find_phrases(now).items() if f" {phrase} " in key})
                found = {key.strip(): gain for key, gain in gained.items()}
                rows.append(about | {"phrase": phrase, "position": position, "gains": found})
        print(json.dumps(rows, indent=1), flush=True)
        told += rows
    if options.out:
        command = f"python benchmarks/scan_phrases.py {shlex.join(sys.argv[1:])}"
        write_text(options.out, json.dumps({"command": command, "device": str(device), "rows": told}, indent=1) + "\n")


if __name__ == "__main__":
    main()
