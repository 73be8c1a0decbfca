"""Catalogues that the ready scanner is measured on, and a copy of it that reads a title once and keeps what it said.

The tagger reads a few dozen titles a second on two cores, and the measurements ask about the same titles again and
again. So `KeptScanner` keeps the marks of every title in a folder (`kept.npz`), in the decimals that count.

    python benchmarks/ready_catalogs.py --data data --keep marks --catalogs movielens_100k,office
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from cowbird.data.types import Float32Array, Int32Array
from cowbird.defenses.p_scanner.catalog_judge import MARK_DECIMALS
from cowbird.defenses.p_scanner.reader import Marks, Pages
from cowbird.defenses.p_scanner.ready import ReadyScanner
from cowbird.defenses.p_scanner.scoring import load_scoring
from cowbird.defenses.p_scanner.tagger import load_tagger
from cowbird.files import replace_atomically
from cowbird.plugins import find_plugin
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
TITLES_PER_READING = 256


def load_titles(name: str, data: Path) -> list[str]:
    """Return the different titles of a catalogue.

    Args:
        name: One of `CATALOGS`.
        data: Folder with `titles/`, `ml-1m/` and `lastfm/`; MovieLens-100K is the asset.
    """
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


class KeptScanner(ReadyScanner):
    """The ready scanner, with the marks of titles that were read before kept in a folder.

    Args:
        keep: The folder.
    """

    key = "ready scanner with kept marks"

    def __init__(self, keep: Path) -> None:
        super().__init__(None, load_scoring())  # pyright: ignore[reportArgumentType]
        self.path = keep / "kept.npz"
        self.kept: dict[str, tuple[Int32Array, Int32Array, Float32Array, float]] = {}
        self.silent = False
        """Whether the tagger is left out: all its marks are 0."""
        if self.path.is_file():
            self._load()

    def read(self, titles: Sequence[str], report: ProgressCallback = report_nothing) -> Marks:
        """Return the marks of titles; those that are not kept are read, and kept."""
        missing = [title for title in dict.fromkeys(titles) if title not in self.kept]
        if missing:
            self._read_missing(missing)
        known = [self.kept[title] for title in titles]
        first, after, mark = (
            np.concatenate([*(row[nth] for row in known), np.empty(0, kind)]).astype(kind)
            for nth, kind in enumerate((np.int32, np.int32, np.float32))
        )
        offsets = np.concatenate([[0], np.cumsum([len(row[0]) for row in known])]).astype(np.int64)
        verdict = np.array([row[3] for row in known], dtype=np.float32)
        pages = Pages(None, np.zeros(len(first), dtype=np.int32), first, after, offsets)  # pyright: ignore[reportArgumentType]
        return Marks(pages, mark * 0, verdict * 0) if self.silent else Marks(pages, mark, verdict)

    def _read_missing(self, missing: Sequence[str]) -> None:
        if self.tagger is None:  # pyright: ignore[reportUnnecessaryComparison]
            self.tagger = load_tagger(device="auto")
        began, saved = time.perf_counter(), time.perf_counter()
        for first in range(0, len(missing), TITLES_PER_READING):
            part = missing[first : first + TITLES_PER_READING]
            made = self.tagger.read(part)
            for nth, title in enumerate(part):
                places = slice(*made.pages.offsets[nth : nth + 2].tolist())
                held = (made.pages.first[places], made.pages.after[places], made.mark[places].round(MARK_DECIMALS))
                self.kept[title] = (*held, float(made.verdict[nth].round(MARK_DECIMALS)))
            if time.perf_counter() - saved > 60:
                print(
                    f"  {first + len(part):,} of {len(missing):,} titles, {time.perf_counter() - began:.0f} s",
                    flush=True,
                )
                self.save()
                saved = time.perf_counter()
        self.save()

    def save(self) -> None:
        """Write what is kept."""
        titles = list(self.kept)
        rows = [self.kept[title] for title in titles]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replace_atomically(self.path) as partial, partial.open("wb") as file:
            np.savez_compressed(
                file,
                titles=np.frombuffer(json.dumps(titles).encode(), dtype=np.uint8),
                count=np.array([len(row[0]) for row in rows], dtype=np.int32),
                first=np.concatenate([row[0] for row in rows]),
                after=np.concatenate([row[1] for row in rows]),
                mark=np.concatenate([row[2] for row in rows]),
                verdict=np.array([row[3] for row in rows], dtype=np.float32),
            )

    def _load(self) -> None:
        held = np.load(self.path)
        titles: list[str] = json.loads(held["titles"].tobytes())
        ends = np.cumsum(held["count"]).tolist()
        first, after, mark, verdict = (held[name] for name in ("first", "after", "mark", "verdict"))
        begin = 0
        for nth, (title, end) in enumerate(zip(titles, ends, strict=True)):
            self.kept[title] = (first[begin:end], after[begin:end], mark[begin:end], float(verdict[nth]))
            begin = end


def main() -> None:
    """Read the titles of catalogues."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--catalogs", default=",".join(CATALOGS))
    parser.add_argument("--most", type=int, default=5000, help="titles of a catalogue at most")
    options = parser.parse_args()
    scanner = KeptScanner(options.keep)
    for name in options.catalogs.split(","):
        titles = load_titles(name, options.data)
        print(name, f"{len(titles):,} titles", flush=True)
        scanner.read(titles[: options.most])


if __name__ == "__main__":
    main()
