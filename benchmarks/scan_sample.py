"""What a scan of a large catalogue misses because it learns from a sample, and what counting all titles finds again.

    python benchmarks/scan_sample.py --titles 100000 --sampled 20000 --out docs/results/scan_sample.json
    python benchmarks/scan_sample.py --lists titles.json --titles 40000 --sampled 8000,40000 --out …

A catalogue of made-up products in ten languages, or of the titles of a list, is planted with triggers in 2 to 300
titles, `TRIGGERS` of each count, and scanned with the small tagger. What is usual and what recurs is learned from a
sample alone, or suspicious phrases of the sample are counted in all titles as well (`whole_counts`), as a scan does.
Then the planted titles and some clean ones are judged. Recall is at the scanner's own threshold for 1 %, and where 1 %
of these clean titles score as high; `seen` is how many of a trigger's titles the sample holds on average.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cowbird.defenses.p_scanner.catalog_judge import (
    CatalogJudge,
    count_phrases,
    look_at_whole,
    read_rounded,
    sample_titles,
)
from cowbird.defenses.p_scanner.ready import ReadyScanner
from cowbird.defenses.p_scanner.small_tagger import skip_logits
from cowbird.defenses.p_scanner.title_sample import TitleSample
from cowbird.defenses.p_scanner.whole_counts import PhraseCounts
from cowbird.files import write_text
from cowbird.rng import stream
from product_titles import write_products

COUNTS = (2, 5, 10, 20, 50, 100, 300)
TRIGGERS = 10
"""Triggers of each count: two codes at the end, two words at the start, two sentences at the end; then less suspicious
ones: a code like a model's, a number, a plain word at the end, edition text."""
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
    if nth < 6:
        return f"{title} {SENTENCES[nth - 4].format(WORDS[place])}"
    code, word = f"{'KVTXRZM'[place]}{7 - place}{place + 2}", WORDS[place].capitalize()
    return f"{title} {(code, f'no. {place + 31}', word, f'({word} Edition)')[nth - 6]}"


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--titles", type=int, default=100_000)
    parser.add_argument("--sampled", default="20000,100000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--reference", action="store_true", help="with as many clean titles as are sampled by default")
    parser.add_argument("--lists", type=Path, help="a JSON list of titles, in place of made-up products")
    parser.add_argument("--before", type=int, default=REFERENCE, help="titles that are set apart for the reference")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.lists is None:
        made = write_products(round(1.4 * (options.titles + options.before)), options.seed)
        titles = list(dict.fromkeys(title for language in made.values() for title in language))
    else:
        titles = list(dict.fromkeys(json.loads(options.lists.read_text(encoding="utf-8"))))
    rng = stream(options.seed, "scan sample")
    titles = [titles[row] for row in rng.permutation(len(titles)).tolist()]
    before, titles = titles[: options.before], titles[options.before : options.before + options.titles]
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
        sample = TitleSample(most, most_characters=200 * most)
        sample.add(titles)
        chosen = sample.list_titles()
        reference = sample_titles(before) if options.reference else []
        marks = read_rounded(scanner, [*reference, *chosen])
        for counted in (False, True):
            if counted and sample.whole:
                continue
            began = time.process_time()
            whole = (
                look_at_whole(scanner, sample, skip_logits(marks, len(reference)), count_in(titles))
                if counted
                else None
            )
            spent = time.process_time() - began
            judge = CatalogJudge.learn(scanner, chosen, reference, marks=marks, whole=whole)
            learned = time.process_time() - began
            head = {"sampled": len(chosen), "titles": len(titles), "reference": len(reference), "counted": counted}
            head |= {"seed": options.seed, "left_out": judge.baseline.left_out, "seconds": round(learned, 1)}
            if whole is not None:
                head |= {"phrases": len(whole.counts.phrases), "witnesses": len(whole.counts.witnesses)}
                head |= {"counting_seconds": round(spent, 2), "estimated": whole.counts.titles}
            rows_made += [head | row for row in measure(judge, planted, clean, set(chosen))]
            print(json.dumps(rows_made[-len(COUNTS) :]), f"{time.process_time() - began:.0f} s", flush=True)
            body = ",\n".join(f"  {json.dumps(row)}" for row in rows_made)
            command = f"python benchmarks/scan_sample.py {shlex.join(sys.argv[1:])}"
            write_text(options.out, f'{{\n "command": {json.dumps(command)},\n "rows": [\n{body}\n ]\n}}\n')


def count_in(titles: Sequence[str]) -> Callable[[Sequence[str]], PhraseCounts]:
    """Return what counts phrases in titles, and says how long that takes."""

    def count(phrases: Sequence[str]) -> PhraseCounts:
        began = time.process_time()
        counts = count_phrases(titles, phrases)
        print(
            f"  {len(phrases):,} phrases: {1e6 * (time.process_time() - began) / len(titles):.1f} µs a title",
            flush=True,
        )
        return counts

    return count


def measure(
    judge: CatalogJudge, planted: Mapping[tuple[int, int], Sequence[str]], clean: Sequence[str], held: set[str]
) -> Iterator[dict[str, Any]]:
    """Yield recall of the triggers of each count."""
    found = judge.judge(clean)
    bar = np.sort(found.score)[-len(clean) // 100]
    for count in COUNTS:
        asked = [judge.judge(planted[count, nth]) for nth in range(TRIGGERS)]
        own = [float(each.flagged.mean()) for each in asked]
        best = [float((each.score > bar).mean()) for each in asked]
        seen = [sum(title in held for title in planted[count, nth]) for nth in range(TRIGGERS)]
        row = {"count": count, "seen": round(float(np.mean(seen)), 1), "recall": round(float(np.mean(own)), 3)}
        row |= {"recall_at_1": round(float(np.mean(best)), 3), "clean_flagged": round(float(found.flagged.mean()), 4)}
        row |= {"by_trigger": [round(each, 2) for each in own], "at_1_by_trigger": [round(each, 2) for each in best]}
        yield row


if __name__ == "__main__":
    main()
