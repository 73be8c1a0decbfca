"""Train taggers and ask them about single titles of catalogues that they never saw.

    python benchmarks/tagger.py fit --titles titles --leave products --seed 0 --out taggers/products-0
    python benchmarks/tagger.py ask --titles titles --tagger taggers/products-0 --catalogs products --out answers
    python benchmarks/tagger.py scanner --titles titles --catalogs products --out answers
    python benchmarks/tagger.py table answers --out docs/results/tagger_unseen.json

`titles` is a folder of catalogues, each a JSON file with a list of titles; `benchmarks/product_titles.py` writes
`products`. `fit` learns from all of `LEARNED` but the catalogues that are left out, and from no title that these hold.
Movies and artists are never learned from. With `--watch`, it also writes what it finds in catalogues that it does not
learn from while it learns (`curve.json`): nothing is chosen by that. `ask` draws half of a catalogue's titles, 1,500 at
most: a threshold for 1 % comes from them. As many others, none among the first, give the measured false positives, and
triggers of each family of `tagger_families.ASKED` are planted in them, one a title. Every title is judged alone, then
behind seven clean titles of its catalogue, which are taken from the first half and give no threshold. `scanner` asks
the same of the scanner that is fitted to the first half (`PoisonScanner`), also title by title.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import AutoTokenizer

from cowbird.data.types import Float32Array
from cowbird.defenses.p_scanner.rounds.poison_scanner import PoisonScanner
from cowbird.defenses.p_scanner.tagger import TaggedTitles, find_spans, load_tagger
from cowbird.defenses.p_scanner.training.tagger_examples import TaggerExamples, TaggerRecipe
from cowbird.defenses.p_scanner.training.tagger_training import list_plain_words, split_words, train_tagger
from cowbird.defenses.p_scanner.triggers.title_edits import EditedTitle, list_taught_families
from cowbird.files import write_text
from cowbird.metrics.detection import auroc, span_iou
from cowbird.rng import stream
from cowbird.scanning.tagger_training import list_refused_texts
from cowbird.victims.fit_context import FitContext, pick_device
from cowbird.victims.language.attention import plug_in
from cowbird.victims.language.examples import Tokens
from cowbird.victims.language.llm import Llm, load_llm, locate_model
from cowbird.victims.language.packing import Pack, compute_hidden_states, pack, split_runs
from tagger_families import ASKED, NATURAL, NEVER, TAUGHT
from title_lists import GROUPS, LEARNED

MAX_HALF, TITLES_PER_FAMILY, TRIES = 1500, 200, 20
"""Clean titles for the threshold, and again to ask about; titles with a trigger of a family; titles tried for each."""
WATCHED_TITLES, WATCHED_TOKENS = 3000, 32768
"""Titles of a catalogue that are watched, half of them with triggers; tokens that are read at once then."""
CONTEXT = 200
"""Clean titles of a catalogue that may stand before a title that is asked about."""
FPR = (0.01, 0.001)
"""False-positive rates that thresholds are set for."""
FITTED = "scanner fitted to the catalogue"
SEED = 20
"""Draws halves, triggers and places, the same for every tagger."""


def read_titles(folder: Path, name: str) -> list[str]:
    """Return the different titles of a catalogue, those without text left out."""
    titles: list[str] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return list(dict.fromkeys(title for title in titles if title.strip()))


def fit(options: argparse.Namespace, command: str) -> None:
    """Train one tagger and write it."""
    out = [name for part in options.leave.split(",") if part for name in GROUPS.get(part, (part,))]
    names = [name for name in LEARNED if (options.titles / f"{name}.json").exists()]
    hidden = {title for name in out if name in names for title in read_titles(options.titles, name)}
    catalogs = {
        name: [title for title in read_titles(options.titles, name) if title not in hidden]
        for name in names
        if name not in out
    }
    watched = options.watch.split(",") if options.watch else []
    if any(name in catalogs for name in watched):
        raise SystemExit("--watch names a catalogue that is learned from")
    llm = Llm(name=options.llm, rank=options.rank, alpha=2.0 * options.rank, layers=options.layers or None)
    recipe = TaggerRecipe(
        llm=llm,
        chunks=options.chunks,
        chunk=options.chunk,
        learning_rate=options.rate,
        batch_size=options.batch_size,
        alone=options.alone,
        habits=options.habits,
        capacity=options.capacity,
        compiled=not options.plain,
        families=list_taught_families() if options.slips else (),
        verdict_share=options.verdict_share,
        context=options.context,
        row=options.row,
    )
    began = time.perf_counter()

    def report(done: int, total: int, remark: str) -> None:
        if done % 200 == 0 or done == total:
            print(f"{options.out.name} {time.perf_counter() - began:.0f} s: {done} of {total}, {remark}", flush=True)

    place = FitContext(pick_device(options.device), report=report)
    watch = Watch({name: read_titles(options.titles, name) for name in watched}, recipe, options.every)
    look = watch.look if watched else None
    refused = list_refused_texts()
    tagger, curve = train_tagger(
        *(recipe, catalogs, options.seed, place, refused, options.workers),
        start=options.start,
        seconds=options.seconds,
        look=look,
    )
    tagger.save(options.out, command)
    if look is not None:
        look(tagger.loaded.model, recipe.chunks)
    losses = [round(float(np.mean(curve.losses[at : at + 50])), 5) for at in range(0, len(curve.losses), 50)]
    told = {"command": command, "seconds": curve.seconds, "tokens": curve.tokens, "steps": len(curve.losses)}
    write_text(options.out / "curve.json", json.dumps(told | {"losses_of_50_steps": losses, "watched": watch.points}))
    print(
        json.dumps(
            {"tagger": options.out.name, "seconds": curve.seconds, "tokens": curve.tokens, "steps": len(curve.losses)}
        ),
        flush=True,
    )


class Watch:
    """Looks at what a tagger that is being trained finds in titles that it does not learn from.

    Args:
        catalogs: The titles; triggers of the taught families are planted in half of them.
        recipe: The tagger's.
        every: Chunks from one look to the next.
    """

    def __init__(self, catalogs: dict[str, list[str]], recipe: TaggerRecipe, every: int) -> None:
        self.catalogs, self.every = catalogs, every
        self.recipe = recipe.model_copy(update={"alone": 1.0, "chunk": WATCHED_TITLES, "verdict_share": None})
        self.recipe = self.recipe.model_copy(update={"families": ()})
        self.drawn: dict[str, Tokens] = {}
        self.points: list[dict[str, Any]] = []
        self.began = time.perf_counter()

    def look(self, model: Any, number: int) -> None:
        """Measure the model's loss, and its recall by titles' scores where 1 % of the clean ones lie above."""
        if number % self.every and number != self.recipe.chunks:
            return
        causal, began = plug_in(model), time.perf_counter()
        device = next(causal.parameters()).device
        if not self.drawn:
            tokenizer: Any = AutoTokenizer.from_pretrained(locate_model(self.recipe.llm.name))
            words = split_words(list_plain_words(tokenizer))[1]
            refused = list_refused_texts()
            for name, titles in self.catalogs.items():
                sources = {name: titles}
                self.drawn[name] = TaggerExamples(tokenizer, sources, words, refused, self.recipe, SEED).draw_chunk(0)
        point: dict[str, Any] = {"chunk": number, "seconds": round(time.perf_counter() - self.began, 1)}
        for name, tokens in self.drawn.items():
            found = [
                measure_row(causal, pack(tokens, part, device, len(tokens)))
                for part in split_runs(tokens.lengths, np.arange(len(tokens)), WATCHED_TOKENS)
            ]
            score = np.concatenate([score for _, score in found])
            assert tokens.label is not None
            planted = tokens.label[tokens.offsets[:-1] + 1] == 0
            bar = np.quantile(score[~planted], 1 - FPR[0])
            point[name] = {
                "loss": round(sum(loss for loss, _ in found), 5),
                "auroc": round(auroc(score, planted) or 0.0, 4),
                "recall_at_1pct": round(float((score[planted] > bar).mean()), 4),
            }
        self.points.append(point | {"took": round(time.perf_counter() - began, 2)})
        print(json.dumps(self.points[-1]), flush=True)


@torch.no_grad()
def measure_row(causal: Any, row: Pack) -> tuple[float, Float32Array]:
    """Return the loss of a packed row of single titles, and the score of each title."""
    with torch.compiler.set_stance("force_eager"):
        states = compute_hidden_states(causal, row, row.predict)
    logits = functional.linear(states, causal.get_output_embeddings().weight[list(row.among)]).float()
    loss = torch.sum(functional.cross_entropy(logits, row.label, reduction="none") * row.weight)
    # A title's score stands in the border before it, which is a document's first place.
    borders = row.documents.offsets[:-1].long()
    first = torch.isin(row.predict, borders) & (row.weight > 0)
    return float(loss), (logits[first, 0] - logits[first, 1]).cpu().numpy()


def draw_halves(titles: Sequence[str], name: str) -> tuple[list[str], list[str]]:
    """Return titles for the threshold, and titles to ask about."""
    order: list[int] = stream(SEED, "halves", name).permutation(len(titles)).tolist()
    half = min(MAX_HALF, len(titles) // 2)
    return [titles[row] for row in order[:half]], [titles[row] for row in order[half : 2 * half]]


def plant_families(clean: Sequence[str], name: str, words: Sequence[str], each: int) -> dict[str, list[EditedTitle]]:
    """Plant triggers of each family in clean titles."""
    made: dict[str, list[EditedTitle]] = {}
    for family, (_, ask) in ASKED.items():
        rng = stream(SEED, "asked", name, family)
        found: list[EditedTitle] = []
        for _ in range(each * TRIES):
            if len(found) == each:
                break
            edited = ask(clean[int(rng.integers(len(clean)))], rng, words)
            if edited is not None:
                found.append(edited)
        made[family] = found
    return made


def ask_catalog(
    name: str,
    titles: Sequence[str],
    words: Sequence[str],
    judge: Callable[[Sequence[str], Sequence[str]], TaggedTitles],
    each: int = TITLES_PER_FAMILY,
    context: int = 0,
) -> dict[str, Any]:
    """Return what is found in a catalogue, family by family, worst first.

    Args:
        name: The catalogue's.
        titles: All of its titles.
        words: Plain words that no tagger was taught with.
        judge: Judges titles, with some that are taken for clean.
        each: Titles with a trigger of each family.
        context: Clean titles that the judge is shown; no threshold comes from them.
    """
    calibration, fresh = draw_halves(titles, name)
    clean_shown, calibration = calibration[:context], calibration[context:]
    planted = plant_families(fresh, name, words, each)
    shown = [*calibration, *fresh, *(edited.title for found in planted.values() for edited in found)]
    found = judge(shown, clean_shown)
    at, score = len(calibration) + len(fresh), found.score
    bars = [find_threshold(score[: len(calibration)], fpr) for fpr in FPR]
    clean = score[len(calibration) : at]
    rows: list[dict[str, Any]] = []
    for family, edited in planted.items():
        part = slice(at, at + len(edited))
        at += len(edited)
        if not edited:
            continue
        both = np.concatenate([clean, score[part]])
        overlap = [
            span_iou([(int(start), int(end))] if start >= 0 else [], one.spans) or 0.0
            for one, start, end in zip(edited, found.start[part], found.end[part], strict=True)
        ]
        rows.append(
            {
                "family": family,
                "kind": ASKED[family][0],
                "titles": len(edited),
                "auroc": round(auroc(both, np.arange(len(both)) >= len(clean)) or 0.0, 4),
                "recall_at_1pct": round(float((score[part] > bars[0]).mean()), 4),
                "recall_at_0.1pct": round(float((score[part] > bars[1]).mean()), 4),
                "span_iou": round(float(np.mean(overlap)), 4),
            }
        )
    rows.sort(key=lambda row: row["recall_at_1pct"])
    return {
        "catalog": name,
        "clean_titles": len(fresh),
        "threshold_titles": len(calibration),
        "fpr_at_1pct": round(float((clean > bars[0]).mean()), 4),
        "fpr_at_0.1pct": round(float((clean > bars[1]).mean()), 4),
        "families": rows,
    }


def find_threshold(clean: Float32Array, fpr: float) -> float:
    """Return the score that a fresh clean title passes with a probability of `fpr` at most (conformal)."""
    rank = int(np.floor(fpr * (len(clean) + 1)))
    return float(np.sort(clean)[-rank]) if rank else np.inf


def ask(options: argparse.Namespace, command: str) -> None:
    """Ask a tagger about catalogues: about each title alone, and about each behind clean titles of its catalogue."""
    began = time.perf_counter()
    tagger = load_tagger(options.tagger, options.device)
    loading = round(time.perf_counter() - began, 1)
    record = tagger.record
    _, words = split_words(list_plain_words(tagger.loaded.tokenizer))
    about = {"tagger": options.tagger.name, "seed": record.seed, "device": str(tagger.device)}
    about |= {"layers": record.llm.layers or 30, "saw": sorted(record.catalogs), "loading_s": loading}
    for name in options.catalogs.split(","):
        titles = read_titles(options.titles, name)
        for judge, context in (("tagger", 0), ("tagger beside 7 titles", CONTEXT)):
            began = time.perf_counter()
            row = ask_catalog(name, titles, words, tagger.tag, options.each, context)
            seconds = round(time.perf_counter() - began, 1)
            row = {"judge": judge} | about | row | {"seconds": seconds, "command": command}
            stem = f"{options.tagger.name}-{name}-{'beside' if context else 'alone'}"
            write_text(options.out / f"{stem}.json", json.dumps(row))
            print(summarize(row), flush=True)


def scanner(options: argparse.Namespace, command: str) -> None:
    """Ask the scanner that is fitted to each catalogue, title by title."""
    device = pick_device(options.device)
    spec = PoisonScanner(context_gain=False)
    spec = spec.model_copy(update={"llm": spec.llm.model_copy(update={"name": options.llm})})
    whole = load_llm(spec.llm, device, spec.tuning.pick_dtype(device))
    _, words = split_words(list_plain_words(whole.tokenizer))
    for name in options.catalogs.split(","):
        titles = read_titles(options.titles, name)
        began = time.perf_counter()
        fitted = spec.fit(draw_halves(titles, name)[0], options.seed, FitContext(device))
        seconds = round(time.perf_counter() - began, 1)

        def alone(shown: Sequence[str], context: Sequence[str], fitted: Any = fitted) -> TaggedTitles:
            marks = fitted._read(shown)
            return TaggedTitles(fitted.score_apart(shown), *find_spans(marks))

        def reader(shown: Sequence[str], context: Sequence[str], fitted: Any = fitted) -> TaggedTitles:
            marks = fitted._read(shown)
            return TaggedTitles(marks.verdict, *find_spans(marks))

        for judge, judging in ((f"{FITTED}, title by title", alone), (f"reader of {FITTED}", reader)):
            row = ask_catalog(name, titles, words, judging, options.each)
            row = {
                "judge": judge,
                "seed": options.seed,
                "device": str(device),
                "layers": spec.llm.layers,
                "fit_s": seconds,
                "command": command,
            } | row
            write_text(options.out / f"{judge.partition(' ')[0]}-{name}-{options.seed}.json", json.dumps(row))
            print(summarize(row), flush=True)


def summarize(row: dict[str, Any]) -> str:
    """Return a line on a catalogue."""
    parts = [f"{row['judge']} {row.get('tagger', '')} {row['catalog']} fpr {row['fpr_at_1pct']:.4f}"]
    for kind in (TAUGHT, NEVER, NATURAL):
        of = [family for family in row["families"] if family["kind"] == kind]
        mean = average(of)
        parts.append(f"{kind}: AUROC {mean['auroc']:.3f} recall {mean['recall_at_1pct']:.3f}")
    return " | ".join(parts)


def table(options: argparse.Namespace, command: str) -> None:
    """Join answers: means of each judge and catalogue over seeds, and of each family, worst first."""
    answers = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(options.answers.glob("*.json"))]
    asked: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for answer in answers:
        asked.setdefault((answer["judge"], answer["layers"], answer["catalog"]), []).append(answer)
    lines: list[str] = []
    for (judge, layers, catalog), same in asked.items():
        row: dict[str, Any] = {"judge": judge, "layers": layers, "catalog": catalog, "seeds": [a["seed"] for a in same]}
        for kind in (TAUGHT, NEVER, NATURAL):
            row[kind] = average([family for a in same for family in a["families"] if family["kind"] == kind])
        row |= {key: [a[key] for a in same] for key in ("clean_titles", "fpr_at_1pct", "fpr_at_0.1pct")}
        names = [family["family"] for family in same[0]["families"]]
        means = {n: average([f for a in same for f in a["families"] if f["family"] == n]) for n in names}
        worst = dict(sorted(means.items(), key=lambda pair: pair[1]["recall_at_1pct"]))
        lines.append(
            json.dumps(row)[:-1]
            + ', "families": {\n'
            + ",\n".join(f"   {json.dumps(name)}: {json.dumps(mean)}" for name, mean in worst.items())
            + "}}"
        )
    commands = sorted({a["command"] for a in answers})
    head = json.dumps({"command": command, "commands": commands}, indent=1)[:-2]
    write_text(options.out, head + ',\n "asked": [\n' + ",\n".join(lines) + "\n ]\n}\n")


def average(families: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the means of some families' figures."""
    keys = ("auroc", "recall_at_1pct", "recall_at_0.1pct", "span_iou")
    return {key: round(float(np.mean([family[key] for family in families])), 4) for key in keys}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("fit", "ask", "scanner", "table"))
    parser.add_argument("answers", type=Path, nargs="?", help="for table: the folder that ask and scanner wrote")
    parser.add_argument("--titles", type=Path, help="folder of catalogues, each a JSON list of titles")
    parser.add_argument(
        "--leave", default="", help="for fit: what is left out, a name of GROUPS or of a list; with commas"
    )
    parser.add_argument("--catalogs", default="", help="for ask and scanner: catalogues that are asked about")
    parser.add_argument("--tagger", type=Path, help="for ask: the tagger's folder")
    parser.add_argument("--start", type=Path, help="for fit: a tagger's folder whose adapters it begins with")
    parser.add_argument("--llm", default=Llm().name)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--layers", type=int, default=0, help="first layers that are kept; all if 0")
    parser.add_argument("--chunk", type=int, default=8192, help="groups of titles drawn at once")
    parser.add_argument("--chunks", type=int, default=10)
    parser.add_argument("--seconds", type=float, help="end by the clock, whatever the chunks")
    parser.add_argument("--batch-size", type=int, default=64, help="groups of titles a step")
    parser.add_argument("--alone", type=float, default=0.4, help="share of the groups that have one title")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--habits", type=float, default=0.5, help="share of the larger groups that have a habit")
    parser.add_argument("--capacity", type=int, default=8192, help="most tokens in a packed row")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw examples")
    parser.add_argument("--slips", action="store_true", help="teach slips (`title_edits.SLIP_FAMILIES`), too")
    parser.add_argument("--verdict-share", type=float, help="share of the loss that is about whole titles")
    parser.add_argument("--context", type=int, default=0, help="tokens of titles that are shown first")
    parser.add_argument("--row", type=int, default=1024, help="tokens of a row of titles behind a context")
    parser.add_argument("--watch", default="", help="for fit: catalogues to look at while it learns; with commas")
    parser.add_argument("--every", type=int, default=16, help="chunks from one look to the next")
    parser.add_argument("--plain", action="store_true", help="do not compile layers on a GPU")
    parser.add_argument("--each", type=int, default=TITLES_PER_FAMILY, help="titles with a trigger of each family")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    command = f"python benchmarks/tagger.py {shlex.join(sys.argv[1:])}"
    if options.what in ("ask", "scanner"):
        options.out.mkdir(parents=True, exist_ok=True)
    {"fit": fit, "ask": ask, "scanner": scanner, "table": table}[options.what](options, command)


if __name__ == "__main__":
    main()
