"""Write the lists of titles that taggers learn from (`title_lists.py`), out of public sources that lie in one folder.

    python benchmarks/title_sources.py --sources sources --held-out held --out titles

`sources` holds bare clones or clones of repositories, named `owner+name`; `packages`, with the unpacked wheels of
faker, mimesis and babel and the unpacked files of Debian's packages pci.ids, usb.ids and ieee-data; `debian`, with
Debian's lists of descriptions (`Translation-*.lz4`, from `apt-get update -o Acquire::Languages=…`); and `faker.json`,
all locales of @faker-js/faker as one JSON object. `held` holds the lists that are asked about, and `products.json` of
`product_titles.py`. No title of these, in any case of letters and with its year or without, gets into another list, and
no title stands in two lists.

Terms: CC0 for cmoa, teenie, tate, shop_categories, corpora; public domain for companies (IEEE's listing) and for
Project Gutenberg's catalogue; MIT for faker, mimesis and faker-ruby; BSD-3-Clause for babel (CLDR under Unicode's
license), PokeAPI (names are trademarks), pci.ids and usb.ids; Apache-2.0 for lists of MiniOneRec and ditto; of Debian's
descriptions each package's own. The repository that Gutenberg's catalogue is taken from has code of its own, which is
not used.
"""

import argparse
import ast
import csv
import io
import json
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from title_clones import Sources, clean_text, list_texts
from title_lists import LANGUAGES

MIN_TITLES = 300
"""A shorter list is left out."""
HELD = ("movielens_100k", "movielens_1m", "lastfm", "office", "anime", "products")
RUBY = (
    *("animal", "airport", "appliance", "australia", "beer", "bird", "business", "camera", "cannabis", "cat", "chess"),
    *("coffee", "coin", "color", "commerce", "company", "compass", "computer", "construction", "crypto_coin"),
    *("dessert", "device", "dog", "drone", "educator", "electrical_components", "finance", "food", "hobby", "horse"),
    *("house", "industry_segments", "job", "mountain", "mountaineering", "nation", "restaurant", "science", "space"),
    *("sport", "subscription", "tea", "theater", "train_station", "university", "vehicle", "volleyball", "world_cup"),
    *("football", "basketball", "team", "military", "programming_language", "ancient", "source", "bank", "app"),
)
"""Files of faker-ruby without films, music and games."""
RUBY_LEFT_OUT = re.compile(
    "movie|music|pokemon|game|anime|film|one_piece|naruto|dragon|harry|star_wars|artist|kpop|show|series|band|lorem|"
    "name|phone|internet|address|code|bank|cell|id_number"
)
CORPORA_LEFT_OUT = re.compile(
    "film|music|games|words|mathematics|religion/.*sutta|technology/computer_sci|pronoun|president|divination|tv|"
    "humans/.*(first|last|name)|obscen|books|mythology|comics"
)
PLACES = (
    "cities|states|provinces|countries|departments|regions|towns|cities_.*|counties|villages|communities|city_names"
)
MOST = {"debian": 16000, "cmoa": 30000, "tate": 40000, "gutenberg": 16000, "shop_offers": 16000, "teenie": 5000}
MOST |= {"devices_pci": 12000, "devices_usb": 12000, "companies": 14000, "jobs": 14000, "dishes": 11000}
MOST |= {"places": 10000, "universities": 8000, "questions": 5000, "game_items": 12600, "shop_categories": 8600}
MOST |= {"papers": 12000, "beers": 6000, "gutenberg_other": 10000, "shop_words": 6500, "shop_composed": 10000}
MOST |= {"dishes_described": 4000, "slogans": 5000, "things": 9000, "things_other": 9000, "corpora": 9000}
MOST |= {"cldr": 14000} | {f"debian_{name}": 5000 for name in ("de", "fr", "it", "ja", "ru", "pt_br", "es")}
MOST |= {f"debian_{name}": 4000 for name in ("pl", "da", "ko", "uk", "zh_cn")}
MOST |= {f"debian_{name}": 3000 for name in ("cs", "sk", "fi")}
"""Titles of each list at most; a random draw of more."""
LEAST_CHARACTERS = {
    "devices_pci": 4,
    "devices_usb": 4,
    "shop_offers": 6,
    "papers": 8,
    "beers": 4,
    "dishes_described": 3,
}

ORDER = ("industrial", "cmoa", "teenie", "tate", "debian", *(f"debian_{name}" for name in LANGUAGES))
ORDER += ("devices_pci", "devices_usb", "companies", "jobs", "dishes", "places", "universities", "questions")
ORDER += ("game_items", "shop_categories", "shop_offers", "papers", "beers", "gutenberg", "gutenberg_other")
ORDER += ("shop_words", "shop_composed", "dishes_described", "slogans", "things", "things_other", "corpora", "cldr")
"""A title that stands in two lists stays in the first of them."""


def read_art(sources: Sources) -> Iterator[tuple[str, list[str]]]:
    """Yield titles of works of two museums."""
    files = [path for path in sources.list_files("cmoa+collection") if path.endswith(".json") and "/" in path]
    for name, folder, most in (("cmoa", "cmoa/", 10**6), ("teenie", "teenie/", 9000)):
        here = [path for path in files if path.startswith(folder)]
        here = here if len(here) <= most else random.Random(5).sample(here, most)
        yield name, [json.loads(text).get("title") or "" for text in sources.read_files("cmoa+collection", here)]
    files = sources.list_files("tategallery+collection", "artworks/")
    files = random.Random(5).sample(files, min(40000, len(files)))
    yield "tate", [json.loads(text).get("title") or "" for text in sources.read_files("tategallery+collection", files)]


def read_debian(sources: Sources) -> Iterator[tuple[str, list[str]]]:
    """Yield short descriptions of Debian's packages, in English and translated."""

    def read(language: str) -> list[str]:
        (path,) = (sources.folder / "debian").glob(f"*_Translation-{language.replace('_', '%5f')}.lz4")
        text = subprocess.run(["lz4cat", path], capture_output=True, check=True).stdout.decode("utf-8", "replace")
        key = f"Description-{language}:"
        return [clean_text(line.removeprefix(key)) for line in text.splitlines() if line.startswith(key)]

    english = read("en")
    yield "debian", english
    known = set(english)
    for name in LANGUAGES:
        language, _, country = name.partition("_")
        texts = read(f"{language}_{country.upper()}" if country else language)
        yield f"debian_{name}", [text for text in texts if text not in known and not text.startswith("<trans")]


def read_devices(sources: Sources) -> Iterator[tuple[str, list[str]]]:
    """Yield names of PCI and USB devices, and of companies."""
    packages = sources.folder / "packages"
    yield "devices_pci", [name for kind, name, _ in _read_ids(packages / "pci.ids") if kind]
    ends = "(Inc|Corp|Corporation|Ltd|Co|LLC|Limited|GmbH|AG|Technology|Technologies|Systems|Semiconductor)"
    names: list[str] = []
    for kind, name, vendor in _read_ids(packages / "usb.ids"):
        if kind == 1:
            brand = re.sub(rf"[,.]? {ends}.*", "", vendor)
            names.append(f"{brand} {name}" if random.Random(name).random() < 0.7 else name)
    yield "devices_usb", names
    with (packages / "oui.csv").open(encoding="utf-8", newline="") as file:
        yield "companies", [row["Organization Name"] for row in csv.DictReader(file)]


def _read_ids(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield kind (0 vendor, 1 device, 2 subsystem), name and vendor of each line."""
    vendor = ""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if re.match(r"^[A-Z] ", line):
            return
        if line.startswith("#") or not line.strip():
            continue
        kind = len(line) - len(line.lstrip("\t"))
        name = line.strip()[(6, 6, 11)[kind] :].strip()
        vendor = vendor if kind else name
        yield kind, name, vendor


def read_python_packages(sources: Sources) -> Iterator[tuple[str, list[str]]]:
    """Yield jobs, food, places, universities and questions of mimesis and faker, and names of CLDR."""
    packages = sources.folder / "packages"
    made: dict[str, list[str]] = {name: [] for name in ("jobs", "dishes", "places", "universities", "questions")}
    for path in sorted(packages.glob("mimesis/datasets/*/*.json")):
        held = json.loads(path.read_text(encoding="utf-8"))
        if path.stem == "person":
            made["jobs"] += list_texts(held.get("occupation"))
            made["universities"] += held.get("university", [])
        elif path.stem == "food":
            made["dishes"] += [text for texts in held.values() for text in texts]
        elif path.stem == "address":
            state = held.get("state")
            made["places"] += held["city"] if isinstance(held.get("city"), list) else []
            made["places"] += state.get("name", []) if isinstance(state, dict) else []
        elif path.stem == "text":
            made["questions"] += [*held.get("questions", []), *held.get("quotes", [])]
    for path in sorted(packages.glob("faker/providers/job/*/__init__.py")):
        made["jobs"] += _read_literals(path, "jobs|jobs_.*")
    for path in sorted(packages.glob("faker/providers/address/*/__init__.py")):
        made["places"] += [text for text in _read_literals(path, PLACES) if "{" not in text]
    yield from made.items()
    yield "cldr", list(_read_cldr(packages))


def _read_literals(path: Path, names: str) -> Iterator[str]:
    """Yield texts of the tuples and dictionaries that a module assigns to names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and re.fullmatch(names, target.id) for target in targets):
            try:
                value = ast.literal_eval(node.value)  # pyright: ignore
            except (ValueError, TypeError):
                continue
            yield from (text for text in value if isinstance(text, str))


def _read_cldr(packages: Path) -> Iterator[str]:
    sys.path.insert(0, str(packages))
    from babel import Locale, localedata  # pyright: ignore

    for name in localedata.locale_identifiers():
        if "_" in name:
            continue
        locale, rng = Locale.parse(name), random.Random(name)
        zones = [zone.get("city") for zone in locale.time_zones.values() if isinstance(zone, dict)]
        units = [
            text
            for unit in locale._data["unit_patterns"].values()
            for text in (unit.values() if isinstance(unit, dict) else [])
            if isinstance(text, str) and "{0}" in text
        ]
        texts = [*locale.territories.values(), *locale.languages.values(), *locale.currencies.values()]
        texts = [*texts, *(zone for zone in zones if isinstance(zone, str)), *units]
        texts = [str(text).replace("{0}", str(rng.randint(1, 60))) for text in texts]
        yield from rng.sample(texts, min(len(texts), 160))


def read_shops(sources: Sources) -> Iterator[tuple[str, list[str]]]:
    """Yield titles of shops, papers and beers, and names of items in games."""
    info = "data/Amazon/info/Industrial_and_Scientific_5_2016-10-2018-11.txt"
    lines = sources.read_file("AkaliKong+MiniOneRec", info).splitlines()
    yield "industrial", [line.split("\t")[1] for line in lines if line.count("\t") >= 2]
    categories = json.loads(sources.read_file("BestBuyAPIs+open-data-set", "categories.json"))
    names = [each["name"] or "" for each in categories]
    names += [below["name"] or "" for each in categories for below in each.get("subCategories", [])]
    names += [" > ".join(above["name"] or "" for above in each["path"][-2:]) for each in categories]
    yield "shop_categories", names
    items = [
        row["name"]
        for file in ("item_names.csv", "move_names.csv")
        for row in csv.DictReader(io.StringIO(sources.read_file("PokeAPI+pokeapi", f"data/v2/csv/{file}")))
    ]
    yield "game_items", items
    offers = [
        *_read_pairs(sources, "Structured/Walmart-Amazon", "title"),
        *_read_pairs(sources, "Structured/Amazon-Google", "title"),
        *_read_pairs(sources, "Textual/Abt-Buy", "name"),
    ]
    yield "shop_offers", [_join_punctuation(text) for text in offers]
    papers = [
        text
        for folder in ("Structured/DBLP-ACM", "Structured/DBLP-GoogleScholar")
        for text in _read_pairs(sources, folder, "title")
    ]
    yield "papers", [_join_punctuation(text) for text in papers if "&" not in text]
    beers = [text for text in _read_pairs(sources, "Structured/Beer", "Beer_Name") if "&" not in text]
    yield "beers", [_join_punctuation(re.sub(r"\s+'\s+s\b", "'s", text)) for text in beers]


def _read_pairs(sources: Sources, folder: str, key: str) -> Iterator[str]:
    """Yield one column of the pairs of ditto's er_magellan lists."""
    for part in ("valid", "test") if folder.endswith("Scholar") else ("train", "valid", "test"):
        text = sources.read_file("megagonlabs+ditto", f"data/er_magellan/{folder}/{part}.txt")
        for line in text.splitlines():
            yield from re.findall(rf"COL {key} VAL (.*?)\s*(?:COL |\t|$)", line)


def _join_punctuation(text: str) -> str:
    text = re.sub(r"\s+([,.:;!?)\]%])", r"\1", re.sub(r"([(\[])\s+", r"\1", text))
    return text.replace("\\", "").replace(" &amp;", " &").replace(" & amp;", " &")


def read_books(sources: Sources) -> Iterator[tuple[str, list[str]]]:
    """Yield titles of Project Gutenberg's catalogue."""
    text = sources.read_file("sage-khan+project-gutenberg-explorer-python", "data/pg_catalog.csv")
    rows = [row for row in csv.DictReader(io.StringIO(text)) if row.get("Type") == "Text"]
    for name, english in (("gutenberg", True), ("gutenberg_other", False)):
        yield name, [row["Title"].split("\n")[0] for row in rows if (row["Language"] == "en") == english]


def read_faker(sources: Sources) -> Iterator[tuple[str, list[str]]]:
    """Yield words of shops, composed titles, described dishes and slogans of @faker-js/faker."""
    locales = json.loads((sources.folder / "faker.json").read_text(encoding="utf-8"))
    words: list[str] = []
    composed: list[str] = []
    slogans: list[str] = []
    for name, held in locales.items():
        commerce, vehicle, company = (held.get(key) or {} for key in ("commerce", "vehicle", "company"))
        words += list_texts([commerce.get("department"), commerce.get("product_name"), vehicle])
        words += list_texts((held.get("color") or {}).get("human"))
        product, rng = commerce.get("product_name") or {}, random.Random(name)
        if all(product.get(key) for key in ("adjective", "material", "product")):
            for _ in range(500):
                composed.append(" ".join(rng.choice(product[key]) for key in ("adjective", "material", "product")))
        if vehicle.get("manufacturer") and vehicle.get("model"):
            for _ in range(200):
                both = f"{rng.choice(vehicle['manufacturer'])} {rng.choice(vehicle['model'])}"
                composed.append(both + rng.choice(["", "", f" {rng.choice(vehicle.get('fuel') or [''])}"]))
        rng = random.Random(name)
        if all(company.get(key) for key in ("adjective", "descriptor", "noun")):
            for _ in range(250):
                slogans.append(" ".join(rng.choice(company[key]) for key in ("adjective", "descriptor", "noun")))
    yield "shop_words", [text for text in words if "{{" not in text]
    yield "shop_composed", [text for text in composed if "{{" not in text]
    food = (text for held in locales.values() for text in list_texts(held.get("food")))
    yield "dishes_described", [text for text in food if "{{" not in text]
    yield "slogans", slogans


def read_ruby(sources: Sources) -> Iterator[tuple[str, list[str]]]:
    """Yield names of things of faker-ruby, in English and in other languages."""
    import yaml  # pyright: ignore

    def read(path: str) -> Any:
        try:
            return yaml.load(sources.read_file("faker-ruby+faker", path), Loader=yaml.CSafeLoader)
        except yaml.YAMLError:
            return {}

    texts = (text for name in RUBY for text in list_texts(read(f"lib/locales/en/{name}.yml")))
    yield "things", [text for text in texts if "#{" not in text and "###" not in text and text[:1] != "/"]
    others: list[str] = []
    for path in sources.list_files("faker-ruby+faker", "lib/locales/"):
        if path.count("/") == 2 and path.endswith(".yml") and "/en" not in path:
            for held in read(path).values():
                for key, value in ((held or {}).get("faker") or {}).items():
                    if not RUBY_LEFT_OUT.search(key):
                        others += [text for text in list_texts(value) if "#{" not in text and "###" not in text]
    yield "things_other", others


def read_corpora(sources: Sources) -> Iterator[tuple[str, list[str]]]:
    """Yield names of colors, plants, foods, venues and such."""
    made: list[str] = []
    for path in sources.list_files("dariusk+corpora", "data/"):
        if path.endswith(".json") and not CORPORA_LEFT_OUT.search(path):
            try:
                held = json.loads(sources.read_file("dariusk+corpora", path))
            except ValueError:
                continue
            if isinstance(held, dict):
                held.pop("description", None)
            texts = [text for text in list_texts(held) if 2 <= len(text) <= 90 and not text.startswith(("http", "#"))]
            made += random.Random(path).sample(texts, min(len(texts), 700))
    yield "corpora", made


READERS: tuple[Callable[[Sources], Iterator[tuple[str, list[str]]]], ...] = (
    *(read_shops, read_art, read_debian, read_devices, read_python_packages, read_books, read_faker),
    *(read_ruby, read_corpora),
)


def choose_titles(name: str, texts: Iterable[str], hidden: set[str], seen: set[str]) -> list[str]:
    """Return a list's different titles that stand in no other list, at most `MOST` of them."""
    least = LEAST_CHARACTERS.get(name, 2)
    titles = list(dict.fromkeys(text for text in map(clean_text, texts) if least <= len(text) <= 200))
    if len(titles) > MOST.get(name, 20000):
        titles = random.Random(name).sample(titles, MOST.get(name, 20000))
    taken = hidden | seen
    titles = [title for title in titles if title.casefold() not in taken]
    seen.update(title.casefold() for title in titles)
    return titles


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True, help="folder of the lists that are asked about")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    hidden: set[str] = set()
    for name in HELD:
        titles = json.loads((options.held_out / f"{name}.json").read_text(encoding="utf-8"))
        hidden |= {title.casefold().strip() for title in titles}
        if name.startswith("movielens"):
            hidden |= {re.sub(r" \(\d{4}\)$", "", title).casefold().strip() for title in titles}
    lists = {name: texts for read in READERS for name, texts in read(Sources(options.sources))}
    seen: set[str] = set()
    for name in ORDER:
        titles = choose_titles(name, lists[name], hidden, seen)
        print(f"{name}: {len(titles):,} titles", flush=True)
        if len(titles) >= MIN_TITLES:
            (options.out / f"{name}.json").write_text(json.dumps(titles, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
