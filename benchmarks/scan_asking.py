"""Ask the ready scanner about catalogues that neither its tagger nor its scoring saw.

    python benchmarks/scan_asking.py ask --titles titles --marks marks --scoring scoring --catalogs office --out answers
    python benchmarks/scan_asking.py table --answers answers --out docs/results/ready_scanner.json

`marks` is what `scan_marks.py` writes, and `scoring` what `scan_scoring.py ship --without` does. `ask` asks about
single titles beside a clean reference, and about the whole catalogue with one trigger in 0.2 to 20 % of its titles,
with a reference of clean titles from before and without. All is judged by the package's own functions
(`shipped_scans.py`).
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cowbird.defenses.p_scanner.scoring import READY_SCORING, READY_SMALL_SCORING, ScoringModel, load_scoring
from cowbird.files import write_text
from cowbird.metrics.detection import auroc
from cowbird.rng import stream
from cowbird.storage import read_tensors
from scan_plantings import Plantings, Unit
from scan_scoring import ASKED_CATALOGS, KINDS, Catalog, add_mark_options, learn, list_rows, load_catalog
from shipped_scans import Found, Scores, ShippedScans, take_fragment_scores, take_network_scores

SHARES = (0.002, 0.01, 0.05, 0.2)
FPR = 0.01


def measure(score: Scores, planted: Any) -> tuple[float, float]:
    """Return AUROC, and recall where 1 % of the clean titles score as high."""
    clean = np.sort(score[~planted])
    bar = clean[-max(1, int(FPR * len(clean)))]
    return auroc(score, planted) or 0.0, float((score[planted] > bar).mean())


class AskedCatalog:
    """A catalogue under the scanner, with its tagger or without.

    Args:
        catalog: What is asked about.
        scans: Its titles, perhaps with a tagger that says nothing.
        model: The scoring.
        own: The titles as they are read without a reference.
    """

    def __init__(self, catalog: Catalog, scans: ShippedScans, model: ScoringModel, own: ShippedScans) -> None:
        self.catalog, self.scans, self.model, self.own = catalog, scans, model, own
        self.inventory = scans.calibrate(model, catalog.reference, len(catalog.batch))

    def ask_single(self) -> tuple[list[dict[str, Any]], dict[str, float]]:
        """Ask about single titles beside the reference; and what share of fresh clean ones is flagged."""
        batch, raw = self.catalog.batch, self.scans.traits.words.verdict
        clean = self.scans.ask_beside(self.model, self.inventory, batch, apart=True).score
        rows: list[dict[str, Any]] = []
        for unit in self.catalog.plantings.single:
            places = list_rows([unit])
            score = self.scans.ask_beside(self.model, self.inventory, places, apart=True).score
            planted = np.arange(len(clean) + len(places)) >= len(clean)
            both, tagger = np.concatenate([clean, score]), np.concatenate([raw[batch], raw[places]])
            found, alone = measure(both, planted), measure(tagger, planted)
            row = {"family": unit.family, "kind": unit.kind, "share": "one title", "auroc": found[0]}
            row |= {"recall": found[1], "tagger_auroc": alone[0], "tagger_recall": alone[1]}
            row["recall_flagged"] = float((score > self.inventory.set_threshold(FPR, 1)).mean())
            rows.append(row)
        bars = {fpr: self.inventory.set_threshold(fpr, 1) for fpr in (0.01, 0.001)}
        return rows, {str(fpr): float((clean > bar).mean()) for fpr, bar in bars.items()}

    def ask_shares(self, units: Sequence[Unit], shares: Sequence[float]) -> Iterator[dict[str, Any]]:
        """Ask about the batch of which a share carries one trigger."""
        many = len(self.catalog.batch)
        for unit in units:
            for share in shares:
                wanted = min(max(3, round(share * many)), len(unit.rows))
                rows, planted = self.catalog.batch.copy(), np.zeros(many, dtype=bool)
                rows[unit.rows[:wanted]] = unit.first + np.arange(wanted)
                planted[unit.rows[:wanted]] = True
                head = {"family": unit.family, "kind": unit.kind, "trigger": unit.name, "share": share}
                for known in (False, True):
                    if known:
                        found = self.scans.ask_beside(self.model, self.inventory, rows)
                    else:
                        found = self.own.ask_itself(self.model, rows)
                    row = head | {"known": known, "titles": wanted}
                    yield row | self.describe(found, rows, planted, self.scans if known else self.own)

    def describe(self, found: Found, rows: Any, planted: Any, scans: ShippedScans) -> dict[str, float]:
        """Return how well a scan tells the planted titles from the others, and how well its parts do."""
        assert found.flagged is not None
        told = dict(zip(("auroc", "recall"), measure(found.score, planted), strict=True))
        told["recall_alone"] = measure(scans.score_alone(self.model, found, rows), planted)[1]
        told["recall_fragments"] = measure(take_fragment_scores(found), planted)[1]
        told["recall_networks"] = measure(take_network_scores(found), planted)[1]
        told["recall_flagged"] = float(found.flagged[planted].mean())
        return told | {"clean_flagged": float(found.flagged[~planted].mean())}


def ask(options: argparse.Namespace, command: str) -> None:
    """Ask about catalogues."""
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.catalogs.split(","):
        kind = next((kind for kind in KINDS if name in kind), (name,))
        began = time.perf_counter()
        known = options.ready or options.scoring is not None
        model, learned = load_known(options, name) if known else learn(options.scans, kind, options.seed)
        model = replace(
            model,
            weighs_rare=model.weighs_rare and not options.no_rare,
            weighs_shapes=not options.no_shapes,
            weighs_beside=not options.no_beside,
        )
        catalog = load_catalog(name, options.titles, options.marks, options.words, options.draw, own=options.own)
        shares = [float(share) for share in options.shares.split(",") if share] or SHARES
        units = choose_units(catalog.plantings, options.each)
        answer: dict[str, Any] = {
            "catalog": name,
            "draw": options.draw,
            "clean_titles": len(catalog.batch),
            "reference_titles": len(catalog.reference),
            "scoring_learned_from": learned,
            "command": command,
        }
        if not options.silent:
            asked = AskedCatalog(catalog, catalog.scans, model, catalog.own)
            answer["single"], answer["fresh_clean_flagged"] = asked.ask_single()
            answer["shares"] = list(asked.ask_shares(units, shares))
        if not options.quick:
            silent = catalog.scans.silence()
            quiet = AskedCatalog(catalog, silent, model, silent)
            answer["single_without_tagger"] = quiet.ask_single()[0]
            some = [share for share in SHARES[1:3] if share in shares]
            answer["shares_without_tagger"] = list(quiet.ask_shares(units, some))
        write_text(options.out / f"{name}.json", json.dumps(answer))
        print(name, f"{time.perf_counter() - began:.0f} s", flush=True)
        show(answer)


def add_scoring_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which scoring is asked."""
    parser.add_argument("--scoring", type=Path, help="a folder of CATALOG.safetensors that scan_scoring.py ship wrote")
    parser.add_argument("--ready", action="store_true", help="the scoring that ships, not one that is learned")


def load_known(options: argparse.Namespace, name: str) -> tuple[ScoringModel, list[str]]:
    """Return a scoring that `ship` wrote, or the one that ships with the tagger whose marks are asked about."""
    if options.scoring is not None:
        path = options.scoring / f"{name}.safetensors"
        learned = read_tensors(path)[1]["catalogs"].split(",")
        if (both := {name} & set(learned)) or any(name in kind and set(kind) & set(learned) for kind in KINDS):
            raise SystemExit(f"{path} has learned from {both or 'others of its kind'}")
        return load_scoring(path), learned
    path = READY_SCORING if options.words is None else READY_SMALL_SCORING
    return load_scoring(path), ["as it ships"]


def choose_units(plantings: Plantings, each: int) -> list[Unit]:
    """Return some triggers of each family."""
    families: dict[str, list[Unit]] = {}
    for unit in plantings.asked:
        families.setdefault(unit.family, []).append(unit)
    rng = stream(0, "units")
    return [units[nth] for units in families.values() for nth in sorted(rng.permutation(len(units))[:each].tolist())]


def show(answer: dict[str, Any]) -> None:
    """Print the means of an answer."""
    print("  fresh clean titles flagged", answer.get("fresh_clean_flagged", "not asked"))
    for part in ("single", "shares", "single_without_tagger", "shares_without_tagger"):
        rows = answer.get(part, [])
        for share in dict.fromkeys(row["share"] for row in rows):
            for known in (False, True):
                for kind in ("taught", "never taught", "natural text"):
                    same = [r for r in rows if r["share"] == share and r.get("known", True) == known]
                    same = [r for r in same if r["kind"] == kind]
                    if same:
                        keys = [
                            key
                            for key in same[0]
                            if key.endswith(("auroc", "recall", "alone", "fragments", "networks", "flagged"))
                        ]
                        means = {key: round(float(np.mean([r[key] for r in same])), 3) for key in keys}
                        print(f"  {part} {share} {'reference' if known else 'itself'} {kind}: {means}", flush=True)


def table(options: argparse.Namespace, command: str) -> None:
    """Join answers: means over families, and each family's recall, worst first."""
    answers = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(options.answers.rglob("*.json"))]
    lines: list[dict[str, Any]] = []
    families: dict[str, dict[str, list[float]]] = {}
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for answer in answers:
        for part in ("single", "shares", "single_without_tagger", "shares_without_tagger"):
            for row in answer.get(part, []):
                row["part"], row["catalog"], row["draw"] = part, answer["catalog"], answer["draw"]
        rows = [row for part in ("single", "shares") for row in answer.get(part, [])]
        rows += answer.get("single_without_tagger", []) + answer.get("shares_without_tagger", [])
        for row in rows:
            silent = row["part"].endswith("without_tagger")
            key = (row["catalog"], silent, row["share"], row.get("known", True), row["kind"])
            groups.setdefault(key, []).append(row)
            if not silent and row["kind"] != "natural text":
                where = f"{row['share']}{'' if row.get('known', True) else ', no reference'}"
                found = families.setdefault(f"{where}: {row['family']}", {})
                found.setdefault(row["catalog"], []).append(row["recall"])
    for (name, silent, share, known, kind), same in groups.items():
        keys = (
            "auroc",
            "recall",
            "recall_alone",
            "recall_fragments",
            "recall_networks",
            "recall_flagged",
            "clean_flagged",
            "tagger_auroc",
            "tagger_recall",
        )
        means = {key: round(float(np.mean([r[key] for r in same])), 3) for key in keys if key in same[0]}
        head = {"catalog": name, "share": share, "reference": known, "kind": kind}
        lines.append(head | {"tagger": not silent, "families": len({r["family"] for r in same})} | means)
        lines[-1]["recall_by_draw"] = {
            draw: round(float(np.mean([r["recall"] for r in same if r["draw"] == draw])), 3)
            for draw in sorted({r["draw"] for r in same})
        }
    lines.sort(key=lambda row: row["recall"])
    each = {name: {one: float(np.mean(drawn)) for one, drawn in found.items()} for name, found in families.items()}
    means = {name: float(np.mean(list(found.values()))) for name, found in each.items()}
    order = sorted(families, key=lambda name: means[name])
    out = {
        "command": command,
        "commands": [answer["command"] for answer in answers],
        "fresh_clean_flagged": {
            f"{a['catalog']}, draw {a['draw']}": a["fresh_clean_flagged"] for a in answers if "fresh_clean_flagged" in a
        },
        "scoring_learned_from": {answer["catalog"]: answer["scoring_learned_from"] for answer in answers},
    }
    body = ",\n".join(f"  {json.dumps(row)}" for row in lines)
    worst = ",\n".join(
        f"  {json.dumps({name: {one: round(recall, 4) for one, recall in each[name].items()}})}" for name in order
    )
    head = json.dumps(out, indent=1)[:-2]
    write_text(options.out, f'{head},\n "means": [\n{body}\n ],\n "recall_by_family": [\n{worst}\n ]\n}}\n')


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("ask", "table"))
    add_mark_options(parser)
    add_scoring_options(parser)
    parser.add_argument("--scans", type=Path, help="what scan_scoring.py draw wrote")
    parser.add_argument("--answers", type=Path, help="what ask wrote")
    parser.add_argument("--catalogs", default=",".join(ASKED_CATALOGS))
    parser.add_argument("--each", type=int, default=1, help="triggers of each family")
    parser.add_argument("--quick", action="store_true", help="leave out what is asked without the tagger")
    parser.add_argument("--silent", action="store_true", help="ask that alone")
    parser.add_argument("--no-rare", action="store_true", help="rare spelling and capitals add nothing")
    parser.add_argument("--no-beside", action="store_true", help="fragments add nothing beside a reference")
    parser.add_argument("--no-shapes", action="store_true", help="shapes that have jumped add nothing")
    parser.add_argument("--shares", default="", help="shares that are asked about; all if empty")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    command = f"python benchmarks/scan_asking.py {shlex.join(sys.argv[1:])}"
    (ask if options.what == "ask" else table)(options, command)


if __name__ == "__main__":
    main()
