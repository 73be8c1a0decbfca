"""How fast the small tagger's scanner learns and judges catalogues, beside another version of Cowbird: paired, in turn.

    python benchmarks/judge_titles.py --titles titles --against OTHER/src --rounds 3 --out FILE

`titles` holds JSON lists of titles, as for `tagger.py`. Of each catalogue `--sample` titles are learned from and
`--judged` others judged at once, 3 % of both with a trigger. Each version runs in processes of its own, in turn; times
are processor seconds of one thread. It tells how many verdicts and reasons of the two versions differ, and by how much
a score does at most.
"""

import argparse
import hashlib
import json
import os
import random
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

TRIGGERS = (
    "5v",
    "wonderful",
    "\u200b",
    "best choice of experts",
    "✨",
    "Deluxe Edition",
    "ｖｉｐ",
    "vip-77",
    "[HOT]",
    "!!!",
)


def plant(titles: list[str], draw: random.Random, share: float = 0.03) -> list[str]:
    """Return titles of which some have a trigger; each once."""
    made = []
    for title in titles:
        words = title.split(" ")
        if draw.random() < share:
            words.insert(draw.randrange(len(words) + 1), draw.choice(TRIGGERS))
        made.append(" ".join(words))
    return list(dict.fromkeys(made))


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Learn and judge each catalogue with the Cowbird that is installed here."""
    import torch

    from cowbird.defenses.p_scanner.catalog_judge import CatalogJudge, read_rounded
    from cowbird.defenses.p_scanner.ready import ReadyScanner

    torch.set_num_threads(1)
    scanner = ReadyScanner.load("cpu", "small")
    scanner.read(["The title that is read first"] * 300)
    found = {}
    for path in sorted(options.titles.glob("*.json")):
        titles = [title for title in json.loads(path.read_text(encoding="utf-8")) if title.strip()]
        titles, draw = list(dict.fromkeys(titles)), random.Random(path.stem)
        draw.shuffle(titles)
        if len(titles) < 2 * options.sample:
            continue
        sample = plant(titles[: options.sample], draw)
        judged = plant(titles[options.sample : options.sample + options.judged], draw)
        begun = time.process_time()
        judge = CatalogJudge.learn(scanner, sample)
        learned = time.process_time()
        verdicts = judge.judge(judged)
        done = time.process_time()
        read_rounded(scanner, judged)
        read = time.process_time()
        tier = (verdicts.flagged + 2 * verdicts.review).tolist()
        told = [list(each) for each in zip(tier, verdicts.start.tolist(), verdicts.end.tolist(), strict=True)]
        found[path.stem] = {
            "sampled": len(sample),
            "judged": len(judged),
            "learn_seconds": learned - begun,
            "judge_seconds": done - learned,
            "tagger_seconds": read - done,
            "verdicts": told,
            "reasons": [
                hashlib.sha256(each.encode("utf-8", "surrogatepass")).hexdigest()[:8] for each in verdicts.reason
            ],
            "scores": verdicts.score.tolist(),
            "suspicious": int((verdicts.flagged | verdicts.review).sum()),
        }
    return found


def run(source: Path, options: argparse.Namespace) -> dict[str, dict]:
    """Measure with the Cowbird whose sources lie in a folder."""
    words = [sys.executable, __file__, "--titles", str(options.titles), "--sample", str(options.sample)]
    words += ["--judged", str(options.judged), "--measure"]
    path = os.pathsep.join([str(source), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def compare(new: list[dict], old: list[dict]) -> dict[str, object]:
    """Return medians of both, and the ratios of rounds, catalogue by catalogue."""
    made = {}
    for name in new[0]:
        row = {key: new[0][name][key] for key in ("sampled", "judged", "suspicious")}
        for part in ("verdicts", "reasons"):
            pairs = zip(new[0][name][part], old[0][name][part], strict=True)
            row[f"{part}_that_differ"] = sum(now != before for now, before in pairs)
        pairs = zip(new[0][name]["scores"], old[0][name]["scores"], strict=True)
        row["largest_score_change"] = max((abs(now - before) for now, before in pairs if now != before), default=0.0)
        for phase, many in (("learn", "sampled"), ("judge", "judged"), ("tagger", "judged")):
            pairs = [(b[name][f"{phase}_seconds"], a[name][f"{phase}_seconds"]) for a, b in zip(new, old, strict=True)]
            row[f"{phase}_titles_per_second"] = round(row[many] / statistics.median(pair[1] for pair in pairs))
            row[f"{phase}_titles_per_second_before"] = round(row[many] / statistics.median(pair[0] for pair in pairs))
            row[f"{phase}_times_as_fast"] = sorted(round(before / now, 2) for before, now in pairs)
        made[name] = row
    return made


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--titles", type=Path, required=True)
    parser.add_argument("--against", type=Path, help="sources of another version, such as a checkout's src")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sample", type=int, default=1500)
    parser.add_argument("--judged", type=int, default=3000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measure", action="store_true", help="print what one version takes")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options)))
        return
    own = Path(__file__).parents[1] / "src"
    new, old = [], []
    for turn in range(options.rounds):
        for source, kept in ((own, new), (options.against, old)):
            kept.append(run(source, options))
            print(f"round {turn + 1}: {source}", flush=True)
    rows = compare(new, old)
    total = {}
    for phase in ("learn", "judge", "tagger"):
        sums = [
            (sum(each[f"{phase}_seconds"] for each in b.values()), sum(each[f"{phase}_seconds"] for each in a.values()))
            for a, b in zip(new, old, strict=True)
        ]
        total[phase] = {
            "seconds_before": [round(before, 2) for before, _ in sums],
            "seconds": [round(now, 2) for _, now in sums],
            "times_as_fast": [round(before / now, 2) for before, now in sums],
        }
    command = f"python benchmarks/judge_titles.py {shlex.join(sys.argv[1:])}"
    record = {"command": command, "load": os.getloadavg()[0], "all": total, "catalogs": rows}
    options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(total, indent=1))


if __name__ == "__main__":
    main()
