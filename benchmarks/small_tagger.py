"""Train small taggers, and have them read what `scan_plantings.py` draws of catalogues that they never saw.

    python benchmarks/small_tagger.py words --out words.json
    python benchmarks/small_tagger.py fit --titles titles --words words.json --seed 1 --out taggers
    python benchmarks/small_tagger.py marks --titles titles --words words.json --taggers taggers --out marks

`titles` is as for `tagger.py`. `words` keeps the plain words of the language model's vocabulary, the taught half
and the half that is asked with, so that nothing else of the language model is needed. `fit` trains one small tagger on
all catalogues of `LEARNED` that are there (`all`, the one to ship), and one for each entry of `LEFT_OUT`, on the same
stream of examples. `marks` writes what `scan_marks.py` writes, by the small tagger that never saw the catalogue; the
places of marks are pieces, so `scan_scoring.py` is told `--pieces`.
"""

import argparse
import json
import shlex
import sys
import time
from pathlib import Path

import numpy as np

from cowbird.defenses.p_scanner.small_tagger import load_small_tagger
from cowbird.defenses.p_scanner.training.small_tagger_training import (
    SmallTaggerRecipe,
    SmallTaggerSizes,
    train_small_taggers,
)
from cowbird.files import hash_texts, write_text
from cowbird.scanning.tagger_training import list_refused_texts
from cowbird.victims.fit_context import FitContext, pick_device
from scan_marks import STEPS
from scan_plantings import SEED, draw_plantings, read_titles
from title_lists import LEARNED, LEFT_OUT


def write_words(options: argparse.Namespace) -> None:
    """Write the words that are taught, and those that are asked with."""
    from transformers import AutoTokenizer

    from cowbird.defenses.p_scanner.training.tagger_training import list_plain_words, split_words
    from cowbird.victims.language.llm import Llm, locate_model

    words = split_words(list_plain_words(AutoTokenizer.from_pretrained(locate_model(Llm().name))))
    write_text(options.out, json.dumps(words))


def fit(options: argparse.Namespace, command: str) -> None:
    """Train them all at once."""
    names = [name for name in LEARNED if (options.titles / f"{name}.json").exists()]
    catalogs = {name: read_titles(options.titles, name) for name in names}
    seen: dict[str, int] = {}
    for titles in catalogs.values():
        for title in titles:
            seen[title] = seen.get(title, 0) + 1
    hidden = {title for name in options.hidden.split(",") if name for title in read_titles(options.titles, name)}
    catalogs = {
        name: [title for title in titles if seen[title] == 1 and title not in hidden]
        for name, titles in catalogs.items()
    }
    leave = {kind: [name for name in left if name in catalogs] for kind, left in LEFT_OUT.items()}
    sizes = SmallTaggerSizes(embedding=options.embedding, width=options.width, blocks=options.blocks)
    recipe = SmallTaggerRecipe(sizes=sizes, chunk=options.chunk, chunks=options.chunks, learning_rate=options.rate)
    began = time.perf_counter()

    def report(done: int, total: int, remark: str) -> None:
        if done % 100 == 0 or done == total:
            print(f"{time.perf_counter() - began:.0f} s: {done} of {total}, {remark}", flush=True)

    place = FitContext(pick_device(options.device), report=report)
    taught = json.loads(options.words.read_text(encoding="utf-8"))[0]
    made = train_small_taggers(
        recipe,
        catalogs,
        taught,
        options.seed,
        place,
        list_refused_texts(),
        options.workers,
        leave,
        seconds=options.seconds,
    )
    for name, tagger in made.items():
        tagger.save(options.out / name, command)


def write_marks(options: argparse.Namespace) -> None:
    """Have each catalogue read by the small tagger that never saw it."""
    options.out.mkdir(parents=True, exist_ok=True)
    taught, asked = json.loads(options.words.read_text(encoding="utf-8"))
    for path in sorted(options.titles.glob("*.json")):
        name = path.stem
        by = next((kind for kind, left in LEFT_OUT.items() if name in left), "all")
        out = options.out / f"{by}-{name}.npz"
        if out.exists() or (options.catalogs and name not in options.catalogs.split(",")):
            continue
        tagger = load_small_tagger(options.taggers / by, options.device)
        if name in tagger.record.catalogs:
            raise SystemExit(f"{by} has learned from {name}")
        titles = draw_plantings(
            read_titles(options.titles, name), name, asked, taught, options.draw, asked=options.asked
        ).list_titles()
        began = time.process_time()
        marks = tagger.read(titles)
        seconds = time.process_time() - began
        mark = np.clip(np.round(marks.mark * STEPS), -32768, 32767).astype(np.int16)
        np.savez_compressed(out, mark=mark, verdict=marks.verdict, digest=np.array(hash_texts(titles)))
        print(
            json.dumps({"tagger": by, "catalog": name, "titles": len(titles), "cpu_s": round(seconds, 1)}), flush=True
        )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("words", "fit", "marks"))
    parser.add_argument("--titles", type=Path, help="folder of catalogues, each a JSON list of titles")
    parser.add_argument("--words", type=Path, help="what `words` wrote")
    parser.add_argument("--taggers", type=Path, help="for marks: what `fit` wrote")
    parser.add_argument("--catalogs", default="", help="for marks: only these; with commas")
    parser.add_argument("--asked", action="store_true", help="for marks: draw nothing that scoring learns from")
    parser.add_argument("--draw", type=int, default=SEED, help="for marks: draws halves, triggers and places")
    parser.add_argument("--hidden", default="movielens_100k,movielens_1m,lastfm", help="titles that are never taught")
    parser.add_argument("--embedding", type=int, default=64)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--chunk", type=int, default=4096)
    parser.add_argument("--chunks", type=int, default=1000)
    parser.add_argument("--seconds", type=float, help="end by the clock, whatever the chunks")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.what == "fit":
        fit(options, shlex.join(["python", *sys.argv]))
    else:
        {"words": write_words, "marks": write_marks}[options.what](options)


if __name__ == "__main__":
    main()
