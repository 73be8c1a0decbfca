"""Have a tagger read all that `scan_plantings.py` draws of some catalogues, and keep what it says of every token.

    python benchmarks/scan_marks.py --titles titles --tagger taggers/products-0 --catalogs products --out marks

Of each catalogue it writes `MARKS-CATALOG.npz`: `mark` (log-odds of all tokens, in 64ths, int16), `verdict` (of all
titles, float32) and `digest`, which tells the titles. Scoring is learned and tried on these files without a GPU.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from cowbird.defenses.p_scanner.tagger import Tagger, load_tagger
from cowbird.defenses.p_scanner.title_context import NO_CONTEXT, TitleContext
from cowbird.defenses.p_scanner.training.tagger_training import list_plain_words, split_words
from cowbird.files import hash_texts
from scan_plantings import SEED, Plantings, draw_plantings, read_titles

STEPS = 64
"""Steps of a mark's log-odds."""
PLAIN_SHARE = 0.8
"""Share of a batch, those with the lowest scores, that a context is chosen from without a reference."""


def choose_context(tagger: Tagger, plantings: Plantings, beside: str) -> TitleContext:
    """Choose what is shown: titles of the reference, or of the batch as a scan without a reference chooses them."""
    if beside == "nothing":
        return NO_CONTEXT
    if beside == "reference":
        return TitleContext.choose(plantings.reference)
    score = tagger.score(plantings.batch)
    bar = float(np.quantile(score, PLAIN_SHARE))
    return TitleContext.choose(
        [title for title, own in zip(plantings.batch, score.tolist(), strict=True) if own <= bar]
    )


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
        marks = tagger.read(titles, choose_context(tagger, plantings, options.beside))
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
