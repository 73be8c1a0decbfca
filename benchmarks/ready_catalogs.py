"""Catalogues that the ready scanner is measured on, and a copy of it that reads a title once and keeps what it said.

The tagger reads a few dozen titles a second on two cores, and the measurements ask about the same titles again and
again. So `KeptScanner` keeps the marks of every title in a folder, in the decimals that count.

    python benchmarks/ready_catalogs.py --titles titles.json.gz --keep marks --device cuda
"""

import argparse
import gzip
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from cowbird.data.types import Float32Array, Int32Array
from cowbird.defenses.p_scanner.baseline import ReadyVerdicts
from cowbird.defenses.p_scanner.catalog_judge import MARK_DECIMALS, learn_from_all
from cowbird.defenses.p_scanner.ready import ReadyScanner
from cowbird.defenses.p_scanner.scoring import READY_SCORING, READY_SMALL_SCORING, load_scoring
from cowbird.defenses.p_scanner.second_look import SecondLook
from cowbird.defenses.p_scanner.small_tagger import READY_SMALL_TAGGER, SmallTagger, TaggerName, load_small_tagger
from cowbird.defenses.p_scanner.tagger import READY_TAGGER, Tagger, load_tagger, read_tagger_record
from cowbird.defenses.p_scanner.title_context import NO_CONTEXT, TitleContext
from cowbird.defenses.p_scanner.token_logits import TokenizedTitles, TokenLogits
from cowbird.files import hash_texts, replace_atomically
from cowbird.plugins import find_plugin
from cowbird.text import replace_surrogates
from cowbird.victims.fit_context import ProgressCallback, report_nothing

CATALOGS = ("anime", "lastfm", "office", "movielens_1m", "movielens_100k")
"""The catalogues, by name."""
SEEN_BY_TAGGER = {
    "anime": "its titles",
    "office": "its titles",
    "lastfm": "no artists; its marks taught the scoring",
    "movielens_1m": "no films; its marks taught the scoring",
    "movielens_100k": "no films; its marks taught the scoring",
}
"""What the scanner that ships has seen of each; see the tagger's model card."""
SEEN_BY_SMALL_TAGGER = {
    "anime": "no anime and no games; its marks taught the scoring",
    "office": "its titles",
    "products": "its titles",
    "lastfm": "no artists; its marks taught the scoring",
    "movielens_1m": "no films; its marks taught the scoring",
    "movielens_100k": "no films; marks on MovieLens-1M taught the scoring",
}
"""What the scanner that ships with the small tagger has seen of each."""
KIND_LEFT_OUT = {
    "small": {"office": "shop", "products": "products"},
    "llm": {"office": "shop", "products": "products", "anime": "games"},
}
"""Which tagger of `small_tagger.py fit` or `tagger.py fit` has seen no catalogue of the kind; the shipped ones saw none
of others."""
PRODUCT_TITLES = 12_000
"""Made-up product titles, in all languages together."""
TITLES_PER_FILE = 100_000
"""Titles that are read before they are written."""
MAX_CONTEXTS_REMEMBERED = 4
"""Contexts whose titles' marks are kept in memory."""
Marks = dict[str, tuple[Int32Array, Int32Array, Float32Array, float]]
"""What was said of titles: first character and the one after the last of each token, log-odds, those of the title."""


def load_titles(name: str, data: Path) -> list[str]:
    """Return the different titles of a catalogue.

    Args:
        name: One of `CATALOGS`, `products`, `products-zh` for those in one language, or a list of `data/lists`.
        data: Folder with `titles/`, `ml-1m/`, `lastfm/` and perhaps `lists/`, each of which is a JSON file with a list
            of titles; MovieLens-100K is the asset.
    """
    if (held := data / "lists" / f"{name}.json").exists():
        return list(dict.fromkeys(title for title in json.loads(held.read_text(encoding="utf-8")) if title.strip()))
    if name.startswith("products"):
        return load_products(name.removeprefix("products").lstrip("-"))
    if name == "movielens_100k":
        titles = find_plugin("dataset", name)().load().items.titles
    elif name == "movielens_1m":
        titles = find_plugin("dataset", "atomic")(path=data / "ml-1m").load().items.titles
    elif name == "lastfm":
        titles = find_plugin("dataset", "atomic")(path=data / "lastfm").load().items.titles
    else:
        file = {"anime": "anime.csv", "office": "office_products.csv"}[name]
        titles = pl.read_csv(data / "titles" / file)["title"].to_list()
    return list(dict.fromkeys(title for title in titles if title and title.strip()))


def load_products(language: str = "") -> list[str]:
    """Return made-up product titles of `product_titles.py`, in ten languages or in one."""
    from product_titles import write_products

    made = write_products(PRODUCT_TITLES, 0)
    return list(dict.fromkeys(title for code, titles in made.items() if language in ("", code) for title in titles))


class KeptScanner(ReadyScanner):
    """The ready scanner, which reads a title once.

    Marks of titles by themselves are kept in a folder, and those behind a context in memory.

    Args:
        keep: The folder.
        device: Where the tagger runs.
        tagger: `llm` or `small`.
        folder: A tagger's, in place of the one of its kind that ships.
        scoring: Its scoring, in place of the one that ships.
    """

    key = "ready scanner with kept marks"
    identity = "0" * 64

    def __init__(
        self,
        keep: Path,
        device: str = "auto",
        tagger: TaggerName = "llm",
        folder: Path | None = None,
        scoring: Path | None = None,
    ) -> None:
        weights = scoring or (READY_SMALL_SCORING if tagger == "small" else READY_SCORING)
        super().__init__(None, load_scoring(weights))  # pyright: ignore[reportArgumentType]
        self.folder, self.device, self.kind = keep, device, tagger
        self.tagger_folder = folder or (READY_SMALL_TAGGER if tagger == "small" else READY_TAGGER)
        self.kept: dict[str, Marks] = {"": {}}
        self.silent = False
        """Whether the tagger is left out: all its marks are 0."""
        for path in sorted(keep.glob("kept-*.npz")):
            self._load(path)

    @cached_property
    def shows_context(self) -> bool:
        """See `ReadyScanner`; known before the tagger is loaded."""
        return self.kind != "small" and read_tagger_record(self.tagger_folder).takes_context

    def read(
        self,
        titles: Sequence[str],
        report: ProgressCallback = report_nothing,
        context: TitleContext = NO_CONTEXT,
    ) -> TokenLogits:
        """Return the marks of titles; those that are not known are read, and remembered."""
        shown = context if self.shows_context else NO_CONTEXT
        key = shown.key if shown else ""
        known = self.kept[key] = self.kept.pop(key, {})
        while len(self.kept) > 1 + MAX_CONTEXTS_REMEMBERED:
            del self.kept[next(other for other in self.kept if other)]
        missing = [title for title in dict.fromkeys(titles) if title not in known]
        for first in range(0, len(missing), TITLES_PER_FILE):
            part = missing[first : first + TITLES_PER_FILE]
            if shown:
                self._remember(known, part, self.open_tagger().read(part, shown))
            else:
                self._read_missing(part)
        rows = [known[title] for title in titles]
        first, after, mark = (
            np.concatenate([*(row[nth] for row in rows), np.empty(0, kind)]).astype(kind)
            for nth, kind in enumerate((np.int32, np.int32, np.float32))
        )
        offsets = np.concatenate([[0], np.cumsum([len(row[0]) for row in rows])]).astype(np.int64)
        verdict = np.array([row[3] for row in rows], dtype=np.float32)
        pages = TokenizedTitles(None, np.zeros(len(first), dtype=np.int32), first, after, offsets)  # pyright: ignore[reportArgumentType]
        return TokenLogits(pages, mark * 0, verdict * 0) if self.silent else TokenLogits(pages, mark, verdict)

    def scan_itself(self, titles: Sequence[str], fprs: tuple[float, float]) -> ReadyVerdicts:
        """Judge titles that may be poisoned by what is usual among themselves, as a scan without a reference does."""
        return learn_from_all(self, titles, (), *fprs).judge(titles)

    def open_tagger(self) -> Tagger | SmallTagger:
        """Return the tagger, loaded when it is first needed."""
        if self.tagger is None:  # pyright: ignore[reportUnnecessaryComparison]
            load = load_small_tagger if self.kind == "small" else load_tagger
            self.tagger = load(self.tagger_folder, self.device)
        return self.tagger

    def _read_missing(self, missing: Sequence[str]) -> None:
        """Read titles by themselves, and write a file of what was said of them."""
        began = time.perf_counter()
        made = self.open_tagger().read(missing)
        held = {
            "titles": np.frombuffer(json.dumps(list(missing)).encode(), dtype=np.uint8),
            "count": np.diff(made.tokenized.offsets).astype(np.int32),
            "first": made.tokenized.first,
            "after": made.tokenized.after,
            "mark": made.mark.round(MARK_DECIMALS),
            "verdict": made.verdict.round(MARK_DECIMALS),
        }
        path = self.folder / f"kept-{hash_texts(map(replace_surrogates, missing))[:12]}.npz"
        self.folder.mkdir(parents=True, exist_ok=True)
        with replace_atomically(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, **held)
        print(f"  {len(missing):,} titles read in {time.perf_counter() - began:.1f} s", flush=True)
        self._load(path)

    def _load(self, path: Path) -> None:
        held = np.load(path)
        titles: list[str] = json.loads(held["titles"].tobytes())
        first, after, mark, verdict = (held[name] for name in ("first", "after", "mark", "verdict"))
        begin = 0
        for nth, (title, end) in enumerate(zip(titles, np.cumsum(held["count"]).tolist(), strict=True)):
            self.kept[""][title] = (first[begin:end], after[begin:end], mark[begin:end], float(verdict[nth]))
            begin = end

    @staticmethod
    def _remember(known: Marks, titles: Sequence[str], made: TokenLogits) -> None:
        mark, verdict, borders = (
            made.mark.round(MARK_DECIMALS),
            made.verdict.round(MARK_DECIMALS),
            made.tokenized.offsets,
        )
        for nth, title in enumerate(titles):
            part = slice(int(borders[nth]), int(borders[nth + 1]))
            known[title] = (made.tokenized.first[part], made.tokenized.after[part], mark[part], float(verdict[nth]))


@dataclass
class KeptReader:
    """A language model as what looks again, with the marks of titles that it read before."""

    scanner: KeptScanner

    @property
    def record(self) -> str:
        """What it is."""
        return "kept"

    def read(self, titles: Sequence[str], context: TitleContext = NO_CONTEXT) -> TokenLogits:
        """Return what it says of titles behind a context."""
        return self.scanner.read(titles, context=context)


def look_with(scanner: KeptScanner) -> SecondLook:
    """Return a second look with a scanner's language model."""
    return SecondLook(lambda: KeptReader(scanner), "kept", scanner.shows_context)


def make_left_out(
    keep: Path, device: str, kind: TaggerName, name: str, taggers: Path | None, scorings: Path | None
) -> KeptScanner:
    """Return the scanner that ships, or one whose tagger, and scoring if given, left out a catalogue's kind.

    Args:
        keep: Folder of marks.
        device: Where the tagger runs.
        kind: `llm` or `small`.
        name: The catalogue that will be asked about.
        taggers: Folder of taggers that left kinds out.
        scorings: Folder of scorings that left kinds out, by catalogue.
    """
    left = KIND_LEFT_OUT[kind].get(name.partition("-")[0]) if taggers is not None else None
    folder = taggers / left if taggers is not None and left is not None else None
    scoring = None if scorings is None else scorings / f"{name.partition('-')[0]}.safetensors"
    return KeptScanner(keep / (left or "ships"), device, kind, folder, scoring)


def make_kept(keep: Path, device: str, tagger: TaggerName) -> KeptScanner:
    """Return the scanner that ships, with one of its taggers or with both in a cascade."""
    if tagger != "cascade":
        return KeptScanner(keep, device, tagger)
    found = KeptScanner(keep / "small", device, "small")
    found.second = look_with(KeptScanner(keep / "llm", device, "llm"))
    return found


def main() -> None:
    """Read titles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--titles", type=Path, required=True, help="a gzipped JSON list of titles")
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    KeptScanner(options.keep, options.device).read(json.loads(gzip.decompress(options.titles.read_bytes())))


if __name__ == "__main__":
    main()
