"""Ask the tagger about a recurring phrase in other titles, and about its titles without it: what that adds.

    python benchmarks/scan_contexts.py ask --titles titles --marks marks --tagger shop --scoring scoring \
      --catalogs office --draw 33 --out drawn/33
    python benchmarks/scan_contexts.py table --learned drawn/33 --shown drawn/101 --out docs/results/scan_contexts.json

A seller puts a trigger into titles that she draws, so the tagger should say of it in other titles what it says in its
own. An honest phrase fits its own titles, and stands out elsewhere. `ask` plants each trigger of `scan_asking.py`,
takes the `TOP` phrases with the highest log-odds, puts each into `CONTEXTS` clean titles that lack it, and takes it out
of as many of its own. `table` learns from some draws, by logistic regression, how likely a phrase is planted: with
these answers, and without them from the same phrases; and adds both to the scores of other draws.
"""

import argparse
import json
import pickle
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cowbird.defenses.p_scanner.fragment_evidence import FRAGMENT_FEATURES
from cowbird.defenses.p_scanner.scoring import LEAST_FRAGMENT, MAX_LOG_ODDS
from cowbird.defenses.p_scanner.tagger import Tagger, load_tagger
from cowbird.files import write_text
from cowbird.rng import stream
from scan_asking import AskedCatalog, add_scoring_options, choose_units, load_known, measure
from scan_scoring import Catalog, add_mark_options, load_catalog

Row = dict[str, Any]
CONTEXTS, TOP, SHARES = 8, 40, (0.01, 0.002)
MIN_PLANTED = 0.7
"""Share of a phrase's titles that are planted in, from which on it is part of a trigger."""
COUNT, GROWTH = FRAGMENT_FEATURES.index("count"), FRAGMENT_FEATURES.index("growth of its share")
WEIGHTS = (0.25, 0.5, 1.0)
LEAST = 2.0
"""What is added to learned log-odds before their positive part is weighed."""


class ContextReader:
    """Reads titles, each once."""

    def __init__(self, tagger: Tagger) -> None:
        self.tagger = tagger
        self.known: dict[str, tuple[float, Any, Any, Any]] = {}

    def read(self, texts: Sequence[str]) -> list[tuple[float, Any, Any, Any]]:
        """Return of each text its log-odds, and the places and marks of its tokens."""
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        if new:
            made = self.tagger.read(new)
            for nth, text in enumerate(new):
                here = slice(int(made.tokenized.offsets[nth]), int(made.tokenized.offsets[nth + 1]))
                parts = (part[here].copy() for part in (made.tokenized.first, made.tokenized.after, made.mark))
                self.known[text] = (float(made.verdict[nth]), *parts)
        return [self.known[text] for text in texts]


def find_phrase(title: str, phrase: str) -> tuple[int, int] | None:
    """Return where a phrase stands in a title, however it is written."""
    words = r"\s+".join(map(re.escape, phrase.split()))
    found = re.search(rf"(?<!\w){words}(?!\w)", title, re.IGNORECASE)
    return None if found is None else found.span()


def put_phrase(host: str, phrase: str, place: int, rng: np.random.Generator) -> tuple[str, int, int]:
    """Return a title with a phrase at its beginning (0), at its end (2) or between words, and where that is."""
    words = host.split(" ")
    at = 0 if place == 0 else len(words) if place == 2 else int(rng.integers(1, max(2, len(words))))
    begin = len(" ".join(words[:at])) + (1 if at else 0)
    return " ".join([*words[:at], phrase, *words[at:]]), begin, begin + len(phrase)


def ask_contexts(
    reader: ContextReader, phrase: str, own: Sequence[str], hosts: Sequence[str], rng: np.random.Generator
) -> Row | None:
    """Return what the tagger says of a phrase in its titles, in others, and of its titles without it."""
    here = [(title, span) for title in own if (span := find_phrase(title, phrase))][:CONTEXTS]
    if not here:
        return None
    others = [host for host in hosts if find_phrase(host, phrase) is None][:CONTEXTS]
    made: list[tuple[str, int, int]] = []
    for nth, host in enumerate(others):
        title, (begin, end) = here[nth % len(here)]
        place = 0 if begin == 0 else 2 if end >= len(title.rstrip()) else 1
        made.append(put_phrase(host, title[begin:end], place, rng))
    without = [" ".join(f"{title[: span[0]]} {title[span[1] :]}".split()) or "-" for title, span in here]
    texts = [title for title, _ in here]
    reader.read([*texts, *others, *(text for text, _, _ in made), *without])
    return {
        "own_mark": _marks(reader, [(title, *span) for title, span in here]),
        "own_verdict": _verdicts(reader, texts),
        "put_mark": _marks(reader, made),
        "put_verdict": _verdicts(reader, [text for text, _, _ in made]),
        "host_verdict": _verdicts(reader, others),
        "without": _verdicts(reader, without),
    }


def _verdicts(reader: ContextReader, texts: Sequence[str]) -> NDArray[np.float32]:
    return np.array([found[0] for found in reader.read(texts)], dtype=np.float32)


def _marks(reader: ContextReader, places: Sequence[tuple[str, int, int]]) -> NDArray[np.float32]:
    found: list[float] = []
    for (_, begin, end), (_, first, after, mark) in zip(
        places, reader.read([text for text, _, _ in places]), strict=True
    ):
        inside = (first < end) & (after > begin)
        found.append(float(mark[inside].max()) if inside.any() else -30.0)
    return np.array(found, dtype=np.float32)


def ask(options: argparse.Namespace, command: str) -> None:
    """Ask about catalogues."""
    options.out.mkdir(parents=True, exist_ok=True)
    reader = ContextReader(load_tagger(options.tagger, options.device))
    for name in options.catalogs.split(","):
        catalog = load_catalog(name, options.titles, options.marks, options.words, options.draw)
        asked = AskedCatalog(catalog, catalog.scans, load_known(options, name)[0])
        scans: list[Row] = []
        for share in SHARES:
            for unit in choose_units(catalog.plantings, 1):
                many = len(catalog.batch)
                wanted = min(max(3, round(share * many)), len(unit.rows))
                rows, planted = catalog.batch.copy(), np.zeros(many, dtype=bool)
                rows[unit.rows[:wanted]], planted[unit.rows[:wanted]] = unit.first + np.arange(wanted), True
                for known in (True, False):
                    head = {"family": unit.family, "kind": unit.kind, "share": share, "known": known}
                    scans.append(head | ask_scan(reader, catalog, asked, rows, planted, known))
        held = {"catalog": name, "draw": options.draw, "scans": scans, "command": command}
        (options.out / f"ctx-{name}-{options.draw}.pkl").write_bytes(pickle.dumps(held))
        print(name, options.draw, len(reader.known), "titles read", flush=True)


def ask_scan(reader: ContextReader, catalog: Catalog, asked: AskedCatalog, rows: Any, planted: Any, known: bool) -> Row:
    """Judge a scan, and ask about the phrases with the highest log-odds."""
    scans, titles = asked.scans, catalog.traits.words.titles
    found = scans.ask_beside(asked.model, asked.inventory, rows) if known else scans.ask_itself(asked.model, rows)
    assert found.baseline is not None
    evidence, by_fragment = found.baseline.evidence, found.baseline.by_fragment
    keys = scans.table.names.list_keys()
    order = [at for at in np.argsort(-by_fragment, kind="stable").tolist() if keys[evidence.fragment[at]][0] == "word"]
    pool, fragments = catalog.reference if known else catalog.batch, list[Row]()
    for at in order[:TOP]:
        phrase, places = keys[evidence.fragment[at]][1], evidence.title[evidence.of == at]
        rng = stream(0, "ctx", catalog.plantings.catalog, phrase)
        hosts = [titles[pool[nth]] for nth in rng.permutation(len(pool))[: 3 * CONTEXTS].tolist()]
        told = ask_contexts(reader, phrase, [titles[rows[place]] for place in places.tolist()], hosts, rng)
        if told is not None:
            head = {"fragment": phrase, "log_odds": float(by_fragment[at]), "features": evidence.features[at]}
            fragments.append(head | {"titles": places, "planted": float(planted[places].mean())} | told)
    return {"planted": planted, "score": np.asarray(found.score, dtype=np.float32), "fragments": fragments}


def describe(fragment: Row, contexts: bool) -> list[float]:
    """Return what a phrase is judged by."""
    means = {name: float(values.mean()) if len(values) else 0.0 for name, values in fragment.items() if name in MEANS}
    known = [float(np.clip(fragment["log_odds"], -MAX_LOG_ODDS, MAX_LOG_ODDS))]
    known += [float(fragment["features"][COUNT]), float(fragment["features"][GROWTH])]
    known += [means["own_mark"], means["own_verdict"]]
    if contexts:
        known += [means["put_mark"], means["put_verdict"] - means["host_verdict"]]
        known += [means["own_mark"] - means["put_mark"], means["own_verdict"] - means["without"]]
    return known


MEANS = ("own_mark", "own_verdict", "put_mark", "put_verdict", "host_verdict", "without")


def learn(drawn: Sequence[Row], known: bool, contexts: bool) -> Callable[[Row], float]:
    """Learn log-odds that a phrase is part of a trigger: logistic regression with a ridge, by Newton's method."""
    rows = [(describe(each, contexts), each["planted"]) for each in list_fragments(drawn, known)]
    rows = [(told, planted) for told, planted in rows if planted == 0 or planted >= MIN_PLANTED]
    told, label = np.array([row for row, _ in rows]), np.array([float(planted > 0) for _, planted in rows])
    mean, scale = told.mean(axis=0), told.std(axis=0) + 1e-6
    given, weight = np.c_[(told - mean) / scale, np.ones(len(told))], np.zeros(told.shape[1] + 1)
    ridge = np.r_[np.ones(told.shape[1]), 1e-6]
    for _ in range(50):
        likely = 1 / (1 + np.exp(-np.clip(given @ weight, -60, 60)))
        curve = (given * (likely * (1 - likely) + 1e-9)[:, None]).T @ given + np.diag(ridge)
        weight = weight + np.linalg.solve(curve, given.T @ (label - likely) - ridge * weight)
    return lambda each: float(((np.array(describe(each, contexts)) - mean) / scale) @ weight[:-1] + weight[-1])


def list_fragments(drawn: Sequence[Row], known: bool) -> list[Row]:
    """Return the phrases of all scans with a reference, or of all without."""
    return [each for held in drawn for scan in held["scans"] if scan["known"] == known for each in scan["fragments"]]


def table(options: argparse.Namespace, command: str) -> None:
    """Write what each way adds to the recall of draws that nothing was learned from."""
    learned, shown = (
        [pickle.loads(path.read_bytes()) for path in sorted(folder.rglob("ctx-*.pkl"))]
        for folder in (options.learned, options.shown)
    )
    lines: list[Row] = []
    for known in (True, False):
        ways: dict[str, Callable[[Row], float]] = {
            "log-odds as they are": lambda each: min(each["log_odds"], MAX_LOG_ODDS) - LEAST_FRAGMENT - LEAST,
            "learned, own titles alone": learn(learned, known, contexts=False),
            "learned, other titles too": learn(learned, known, contexts=True),
        }
        for held in shown:
            scans = [scan for scan in held["scans"] if scan["known"] == known]
            for share, kind in sorted({(scan["share"], scan["kind"]) for scan in scans}):
                same = [scan for scan in scans if (scan["share"], scan["kind"]) == (share, kind)]
                head = {"catalog": held["catalog"], "draw": held["draw"], "reference": known, "share": share}
                before = float(np.mean([measure(scan["score"], scan["planted"])[1] for scan in same]))
                line: Row = head | {"triggers": kind, "scans": len(same), "recall": round(before, 3)}
                for way, judge in ways.items():
                    values = [list(map(judge, scan["fragments"])) for scan in same]
                    for weight in WEIGHTS:
                        after = [add(scan, told, weight) for scan, told in zip(same, values, strict=True)]
                        line[f"{way}, {weight:g}"] = round(float(np.mean(after)) - before, 3)
                lines.append(line)
    body = ",\n".join(f"  {json.dumps(line)}" for line in lines)
    about = {"command": command, "learned_from": [f"{held['catalog']}, draw {held['draw']}" for held in learned]}
    write_text(options.out, f'{json.dumps(about, indent=1)[:-2]},\n "differences": [\n{body}\n ]\n}}\n')


def add(scan: Row, told: Sequence[float], weight: float) -> float:
    """Return the recall of a scan if what is told of its phrases is added to its scores."""
    best = np.full(len(scan["score"]), -LEAST)
    for each, value in zip(scan["fragments"], told, strict=True):
        best[each["titles"]] = np.maximum(best[each["titles"]], value)
    return measure(scan["score"].astype(np.float64) + weight * (best + LEAST), scan["planted"])[1]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("ask", "table"))
    add_mark_options(parser)
    add_scoring_options(parser)
    parser.add_argument("--tagger", type=Path, help="the folder of the tagger whose marks these are")
    parser.add_argument("--catalogs", default="")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--learned", type=Path, help="for table: what ask wrote of the draws to learn from")
    parser.add_argument("--shown", type=Path, help="for table: what ask wrote of the draws to show")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    (ask if options.what == "ask" else table)(options, f"python benchmarks/scan_contexts.py {shlex.join(sys.argv[1:])}")


if __name__ == "__main__":
    main()
