"""Say how many verdicts of a cascade change if its language model reads open titles in other batches.

    python benchmarks/look_batches.py --titles titles --catalogs anime,office --out FILE

`--titles` holds JSON lists of titles. 3,000 titles of each catalogue are judged by what is usual among them, 1 % of
them with a trigger. All titles that the small tagger's score leaves open are read at once for that. Then they are read
again, so many at a time, and all titles are judged once more by the same thresholds.
"""

import argparse
import json
import random
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from cowbird.defenses.p_scanner import second_look
from cowbird.defenses.p_scanner.catalog_judge import read_rounded
from cowbird.defenses.p_scanner.ready import ReadyScanner
from cowbird.files import write_text

TITLES, PLANTED, TRIGGER = 3000, 30, "5v"
FPRS = (0.01, 0.05)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--titles", type=Path, required=True)
    parser.add_argument("--catalogs", default="anime,office")
    parser.add_argument("--sizes", default="1,8,64", help="titles read at once")
    parser.add_argument("--most", type=int, default=300, help="open titles that are read again, at most")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    scanner, rows = ReadyScanner.load("cpu", "cascade"), list[dict[str, Any]]()
    assert scanner.second is not None
    for name in options.catalogs.split(","):
        titles = json.loads((options.titles / f"{name}.json").read_text(encoding="utf-8"))
        titles = list(dict.fromkeys(title for title in titles if title.strip()))[:TITLES]
        for row in random.Random(0).sample(range(len(titles)), PLANTED):
            titles[row] = f"{titles[row]} {TRIGGER}"
        marks = read_rounded(scanner, titles)
        baseline = scanner.learn_baseline(titles, (), *FPRS, marks)
        verdicts = scanner.judge(titles, baseline, marks)
        memory, key = scanner.second.memory, baseline.context.key
        known = dict(memory.known[key])
        for size in map(int, options.sizes.split(",")):
            read, again = list(known)[: options.most], dict[str, second_look.Look]()
            for first in range(0, len(read), size):
                part = read[first : first + size]
                again.update(zip(part, second_look.read_looks(memory.reader, part, baseline.context), strict=True))
            memory.known[key] = known | again
            found = scanner.judge(titles, baseline, marks)
            memory.known[key] = dict(known)
            moved = [abs(known[title].verdict - look.verdict) for title, look in again.items()]
            row = {"catalog": name, "titles": len(titles), "read_at_once": size, "read_again": len(again)}
            row |= {"looks_that_differ": sum(each > 0 for each in moved), "largest_difference": round(max(moved), 2)}
            row |= {"flags_that_change": int((found.flagged != verdicts.flagged).sum())}
            row |= {"reviews_that_change": int((found.review != verdicts.review).sum())}
            rows.append(row | {"flagged": int(verdicts.flagged.sum())})
            print(json.dumps(rows[-1]), flush=True)
            command = f"python benchmarks/look_batches.py {shlex.join(sys.argv[1:])}"
            head = {"command": command, "bfloat16": bool(torch.cpu.get_capabilities().get("avx512_bf16"))}
            write_text(options.out, json.dumps(head | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
