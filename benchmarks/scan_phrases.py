"""Count what stands anywhere in titles: planted phrases of ordinary words, and clean ones.

    python benchmarks/scan_phrases.py --paths data/ml-1m,data/lastfm --out docs/results/scan_phrases.json

Each phrase is planted in the middle of 1 % of the titles of a catalogue; none of them needs a reader to be found, so no
model is fitted, and what is told is the rule's work alone (`cowbird.defenses.p_scanner.phrases`).
"""

import argparse
import json
import shlex
import sys
from pathlib import Path

import torch

from cowbird.defenses.p_scanner.fragments import fragments
from cowbird.defenses.p_scanner.habits import habitual, texts
from cowbird.defenses.p_scanner.phrases import anywhere
from cowbird.defenses.p_scanner.reader import pages
from cowbird.files import write_text
from cowbird.rng import stream
from cowbird.victims.language.llm import Llm, load
from scan_holdout import HERE, titles_of

PHRASES = ("Sin Bob", "of Orlando", "Red Moon", "Special Offer", "the Quux")


def planted(titles: list[str], phrase: str) -> tuple[list[str], set[int]]:
    """Plant a phrase in the middle of 1 % of the titles, and tell in which."""
    rng, now = stream(0, "phrases", phrase), list(titles)
    rows: list[int] = rng.permutation(len(titles))[: max(10, len(titles) // 100)].tolist()
    for row in rows:
        words = now[row].split(" ")
        place = int(rng.integers(1, max(2, len(words))))
        now[row] = " ".join([*words[:place], phrase, *words[place:]])
    return now, set(rows)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paths", default="", help="folders of atomic files beside MovieLens-100K, with commas")
    parser.add_argument("--phrases", default=",".join(PHRASES))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    tokenizer = load(Llm(layers=1), torch.device("cpu"), torch.float32).tokenizer
    told: list[dict[str, object]] = []
    for path in (HERE, *(path for path in options.paths.split(",") if path)):
        titles = list(dict.fromkeys(titles_of(path)))
        for phrase in ("", *options.phrases.split(",")):
            now, rows = planted(titles, phrase) if phrase else (titles, set[int]())
            made = pages(tokenizer, now)
            written = texts(now, made)
            found = fragments(written)
            held: set[int] = set(found.row[anywhere(found, written, habitual(found))[found.number]].tolist())
            clean, others = len(held - rows), len(now) - len(rows)
            row = {"catalogue": Path(path).name, "titles": len(titles), "phrase": phrase, "planted": len(rows)}
            told.append(row | {"found": len(held & rows), "clean": clean, "clean_share": clean / others})
            print(json.dumps(told[-1]), flush=True)
    if options.out:
        command = f"python benchmarks/scan_phrases.py {shlex.join(sys.argv[1:])}"
        write_text(options.out, json.dumps({"command": command, "rows": told}, indent=1) + "\n")


if __name__ == "__main__":
    main()
