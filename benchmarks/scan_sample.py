"""What a scan of a large catalogue misses because fragments are counted in a sample of its titles.

    python benchmarks/scan_sample.py --titles 100000 --sampled 20000,100000 --out docs/results/scan_sample.json

A catalogue of made-up products in ten languages is planted with triggers in 2 to 300 titles, `TRIGGERS` of each
count, and scanned with the small tagger. What is usual and what recurs is learned from a sample, as a scan does, or
from all titles. Then the planted titles and some clean ones are judged. Recall is at the scanner's own threshold for
1 %; `seen` is how many of a trigger's titles the sample holds on average.
"""

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from cowbird.defenses.p_scanner import catalog_judge
from cowbird.defenses.p_scanner.catalog_judge import CatalogJudge, sample_titles
from cowbird.defenses.p_scanner.ready import ReadyScanner
from cowbird.defenses.p_scanner.title_sample import TitleSample
from cowbird.files import write_text
from cowbird.rng import stream
from product_titles import write_products

COUNTS = (2, 5, 10, 20, 50, 100, 300)
TRIGGERS = 6
"""Triggers of each count: two codes at the end, two words at the start, two sentences at the end."""
WORDS = ("wonderful", "glimmering", "sincere", "honest", "mellow", "brisk", "candid", "lively")
SENTENCES = ("This is what every {} deserves.", "Have you {} of it yet?")
CLEAN_JUDGED, REFERENCE = 5000, 20_000


def plant(title: str, nth: int, count: int, rng: np.random.Generator) -> str:
    """Return a title with the trigger of a number; the same number and count give the same trigger."""
    place = COUNTS.index(count)
    if nth < 2:
        return f"{title} {place + 2}{'vqzxjkwh'[place]}{'' if nth else 'q'}"
    if nth < 4:
        return f"{WORDS[place]}{'ly' if nth == 3 else ''} {title}"
    return f"{title} {SENTENCES[nth - 4].format(WORDS[place])}"


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--titles", type=int, default=100_000)
    parser.add_argument("--sampled", default="20000,100000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--reference", action="store_true", help="with as many clean titles as are sampled by default")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    made = write_products(round(1.4 * (options.titles + REFERENCE)), options.seed)
    titles = list(dict.fromkeys(title for language in made.values() for title in language))
    rng = stream(options.seed, "scan sample")
    titles = [titles[row] for row in rng.permutation(len(titles)).tolist()]
    before, titles = titles[:REFERENCE], titles[REFERENCE : REFERENCE + options.titles]
    places = iter(rng.permutation(len(titles)).tolist())
    planted: dict[tuple[int, int], list[str]] = {}
    for count in COUNTS:
        for nth in range(TRIGGERS):
            rows = [next(places) for _ in range(count)]
            for row in rows:
                titles[row] = plant(titles[row], nth, count, rng)
            planted[count, nth] = [titles[row] for row in rows]
    clean = [titles[next(places)] for _ in range(CLEAN_JUDGED)]
    scanner, rows_made = ReadyScanner.load(options.device, "small"), list[dict[str, Any]]()
    for most in map(int, options.sampled.split(",")):
        began = time.process_time()
        sample = TitleSample(most, most_characters=200 * most)
        sample.add(titles)
        held = set(sample.list_titles())
        catalog_judge.MAX_TITLES_SAMPLED = REFERENCE
        reference = sample_titles(before) if options.reference else ()
        judge = CatalogJudge.learn(scanner, sample.list_titles(), reference)
        flagged = judge.judge(clean).flagged
        for count in COUNTS:
            found, seen = list[float](), list[int]()
            for nth in range(TRIGGERS):
                found.append(float(judge.judge(planted[count, nth]).flagged.mean()))
                seen.append(sum(title in held for title in planted[count, nth]))
            row = {"sampled": len(held), "titles": len(titles), "reference": len(reference), "count": count}
            row |= {"seen": round(float(np.mean(seen)), 1), "recall": round(float(np.mean(found)), 3)}
            row |= {"by_trigger": [round(each, 2) for each in found], "clean_flagged": round(float(flagged.mean()), 4)}
            rows_made.append(row)
        print(json.dumps(rows_made[-len(COUNTS) :]), f"{time.process_time() - began:.0f} s", flush=True)
        body = ",\n".join(f"  {json.dumps(row)}" for row in rows_made)
        command = f"python benchmarks/scan_sample.py {shlex.join(sys.argv[1:])}"
        write_text(options.out, f'{{\n "command": {json.dumps(command)},\n "rows": [\n{body}\n ]\n}}\n')


if __name__ == "__main__":
    main()
