"""Write more lists of titles that taggers learn from, behind those of `title_sources.py`.

    python benchmarks/more_title_sources.py --sources … --packages … --held-out held --known titles --out more

`sources` holds clones of repositories, named `owner+name`; `packages`, the unpacked files of the npm packages
zigbee-herdsman-converters, simple-icons, emojibase-data, cldr-annotations-full and color-name-list, each in a folder of
that name. `held` holds lists that are asked about, and `known` those that `title_sources.py` wrote. No title of these,
in any case of letters and with its year or without, gets into a list.

Terms, as each source's license file or readme says: Apache-2.0 for the offers (ditto's part of Web Data Commons), and
for electronics, groceries, cosmetics and phones; MIT-0 for retail_demo; BSD-3-Clause for brands; CC0 for
brands_icons, chess, mods, opam, standards, art_nga and museum_events; the Unlicense for channels, scoop and laws_de;
PDDL for customs; public domain for foods_usda and, with MIT, recipes; ISC for places_kinds; MIT and Unicode-3.0 for
emoji_names; CC0 or MIT for links and apps; MIT for the others. Names in them may be trademarks, and headlines their
papers'.
"""

import argparse
import html
import json
import random
import re
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import more_texts
import more_titles
from title_clones import Sources
from title_lists import CHOSEN_BY, MORE

DRAWN, MOST = 15_000, 10_000
"""Titles of a source at most, and of a list; random draws of more."""
FEWER = {"news_zh": 5000, "questions_zh": 5000, "sayings_zh": 4000, "poems_zh": 5000, "topics_zh": 5000}
FEWER |= {"channels": 6000, "colors": 4000, "links": 8000, "places_kinds": 6000, "emoji_names": 4000}
FEWER |= {"headlines": 6000, "pc_parts": 8000, "customs": 5000, "assistants": 8000}
"""Lists that would otherwise be drawn from too often."""
LEAST_TITLES = 300
CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u200b\u2028\u2029\ufeff\ufffd]+|[\u00ad\u200e\u200f\u202a-\u202e\u2060-\u2069]+"
)
"""What no title keeps; the joiners of emoji and of Persian and Indian writing stay."""
MARKUP = re.compile(r"</?[a-zA-Z][^>]*>|https?:|www\.|\]\(|^\W*$|^_+$|\\[nu]|\{\{|â€|Ã‚|^null ")
"""A title with this is left out."""


def clean_text(text: str) -> str:
    """Return a title without entities, control characters and double spaces."""
    text = CONTROL.sub(" ", html.unescape(html.unescape(text)))
    return re.sub(r"[ \u00a0]{2,}", " ", text).strip()


def keep_titles(titles: Iterable[str]) -> list[str]:
    """Return different clean titles of 2 to 200 characters, a random draw of too many."""
    kept = list(dict.fromkeys(text for text in map(clean_text, titles) if 2 <= len(text) <= 200))
    kept = [text for text in kept if not MARKUP.search(text)]
    return kept if len(kept) <= DRAWN else sorted(random.Random(12).sample(kept, DRAWN))


def read_held(folder: Path) -> set[str]:
    """Return the titles of lists that are asked about, in small letters, with their years and without."""
    held: set[str] = set()
    for path in folder.glob("*.json"):
        titles = json.loads(path.read_text(encoding="utf-8"))
        held |= {title.casefold().strip() for title in titles}
        held |= {re.sub(r" \(\d{4}\)$", "", title).casefold().strip() for title in titles}
    return held


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=Path, required=True)
    parser.add_argument("--packages", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True, help="folder of the lists that are asked about")
    parser.add_argument("--known", type=Path, required=True, help="folder of the lists that came before")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    sources = Sources(options.sources)
    of_clones = (read(sources) for read in (*more_titles.OF_CLONES, *more_texts.OF_CLONES))
    of_packages = (read(options.packages) for read in more_titles.OF_PACKAGES)
    lists = {name: keep_titles(titles) for name, titles in chain(*of_clones, *of_packages)}
    taken = read_held(options.held_out) | read_held(options.known)
    for name in (*CHOSEN_BY, *sorted(MORE)):  # a title that stands in two lists stays in the first of them
        titles, most = lists[name], FEWER.get(name, MOST)
        titles = titles if len(titles) <= most else random.Random(name).sample(titles, most)
        titles = [title for title in titles if title.casefold().strip() not in taken]
        taken.update(title.casefold().strip() for title in titles)
        print(f"{name}: {len(titles):,} titles", flush=True)
        if len(titles) >= LEAST_TITLES:
            (options.out / f"{name}.json").write_text(json.dumps(titles, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
