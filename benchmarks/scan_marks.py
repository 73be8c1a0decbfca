"""Have a tagger read all that `scan_plantings.py` draws of some catalogues, and keep what it says of every token.

    python benchmarks/scan_marks.py --titles titles --tagger taggers/products-0 --catalogs products --out marks

Of each catalogue it writes `MARKS-CATALOG.npz`: `mark` (log-odds of all tokens, in 64ths, int16), `verdict` (of all
titles, float32) and `digest`, which tells the titles. Scoring is learned and tried on these files without a GPU.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cowbird.data.types import concat_ranges
from cowbird.defenses.p_scanner.tagger import Tagger, load_tagger
from cowbird.defenses.p_scanner.title_context import read_in_context
from cowbird.defenses.p_scanner.token_logits import TokenLogits
from cowbird.defenses.p_scanner.training.tagger_training import list_plain_words, split_words
from cowbird.files import hash_texts
from cowbird.rng import stream
from scan_plantings import SEED, draw_plantings, read_titles

STEPS = 64
"""Steps of a mark's log-odds."""
MAX_CONTEXT = 96
"""Titles of a context."""


def read_beside(tagger: Tagger, titles: Sequence[str], pool: Sequence[str], readings: int) -> TokenLogits:
    """Read titles behind contexts of a pool, and those that stand in a context behind others."""
    rows = 16 if tagger.device.type == "cuda" else 1
    made: list[TokenLogits] = []
    for nth in range(readings):
        order: list[int] = stream(0, "context", nth).permutation(len(pool)).tolist()
        first, second = ([pool[at] for at in order[half::2]][:MAX_CONTEXT] for half in range(2))
        told = read_in_context(tagger.loaded, titles, first, tagger.device, rows)
        shown = set(first)
        again = [at for at, title in enumerate(titles) if title in shown]
        other = read_in_context(tagger.loaded, [titles[at] for at in again], second, tagger.device, rows)
        told.verdict[again] = other.verdict
        offsets = told.tokenized.offsets
        told.mark[concat_ranges(offsets[again], np.diff(offsets)[again])] = other.mark
        made.append(told)
    mark = np.mean([each.mark for each in made], axis=0, dtype=np.float32)
    return TokenLogits(made[0].tokenized, mark, np.mean([each.verdict for each in made], axis=0, dtype=np.float32))


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--titles", type=Path, required=True, help="folder of catalogues, each a JSON list of titles")
    parser.add_argument("--tagger", type=Path, required=True, help="the tagger's folder")
    parser.add_argument("--catalogs", default="", help="catalogues that it never saw; with commas")
    parser.add_argument("--learned", default="", help="the same, of which nothing is drawn that is asked about")
    parser.add_argument("--asked", action="store_true", help="draw nothing that scoring learns from")
    parser.add_argument("--draw", type=int, default=SEED, help="draws halves, triggers and places")
    parser.add_argument("--beside", choices=("nothing", "reference", "batch"), default="nothing", help="what is shown")
    parser.add_argument("--readings", type=int, default=1, help="contexts; what is said beside each is averaged")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    tagger = load_tagger(options.tagger, options.device)
    taught, asked = split_words(list_plain_words(tagger.loaded.tokenizer))
    learned = options.learned.split(",")
    for name in [each for each in (*options.catalogs.split(","), *learned) if each]:
        if name in tagger.record.catalogs:
            raise SystemExit(f"{options.tagger} has learned from {name}")
        plantings = draw_plantings(
            read_titles(options.titles, name), name, asked, taught, options.draw, name in learned, options.asked
        )
        titles = plantings.list_titles()
        began = time.perf_counter()
        if options.beside == "nothing":
            marks = tagger.read(titles)
        else:
            pool = plantings.reference if options.beside == "reference" else plantings.batch
            marks = read_beside(tagger, titles, pool, options.readings)
        seconds = time.perf_counter() - began
        mark = np.clip(np.round(marks.mark * STEPS), -32768, 32767).astype(np.int16)
        np.savez_compressed(
            options.out / f"{options.tagger.name}-{name}.npz",
            mark=mark,
            verdict=marks.verdict,
            digest=np.array(hash_texts(titles)),
        )
        told = {"tagger": options.tagger.name, "catalog": name, "titles": len(titles), "tokens": len(mark)}
        print(json.dumps(told | {"seconds": round(seconds, 1)}), flush=True)


if __name__ == "__main__":
    main()
