"""Titles of shops and names of things, out of public sources; `more_title_sources.py` writes them."""

import csv
import io
import json
import random
import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from title_clones import Sources, list_objects, load_json, unquote

EMOJI_LANGUAGES = (
    *("en", "de", "fr", "es", "pt", "it", "ja", "ko", "zh", "zh-Hant", "ru", "uk", "ar", "hi", "bn", "th", "vi", "tr"),
    *("el", "he", "fa", "id", "pl", "ta"),
)
COSMETICS = (
    "supporting-blog-content/hybrid-search-for-an-e-commerce-product-catalogue/product-store-search/files/dataset"
)
"""Where the products of Elastic's example of a shop lie."""
SPAM = re.compile(r'"@|", "|(?i:cheap|for sale|online|outlet)')
"""Offers that come from shops of fakes, or that were cut in the wrong place."""


def read_wdc(sources: Sources) -> Iterator[tuple[str, list[str]]]:
    """Yield offers of many shops in many languages, out of the Web Data Commons."""
    for name in ("shoes", "watches", "cameras", "computers"):
        titles: list[str] = []
        files = sources.find_files("megagonlabs+ditto", f"^data/wdc/{name}/")
        for text in sources.read_files("megagonlabs+ditto", files):
            for line in text.splitlines():
                for side in line.split("\t")[:2]:
                    offer = side.removeprefix("COL title VAL").strip()
                    found = re.match(r'"(.+?)"(@[\w-]+)?(,? |$)', offer)
                    titles.append(found.group(1).strip() if found else offer.strip('" '))
        yield f"offers_{name}", [text for text in titles if not SPAM.search(text)]


def read_shops(sources: Sources) -> Iterator[tuple[str, list[str]]]:
    """Yield products of shops."""
    text = sources.read_file("aws-samples+retail-demo-store", "src/products/data/products.yaml")
    yield "retail_demo", [unquote(each) for each in re.findall(r"^  name: (.+(?:\n    .+)*)", text, re.M)]
    parts: list[str] = []
    for path in sources.find_files("docyx+pc-part-dataset", r"^data/json/.*\.json$"):
        for held in load_json(sources.read_files("docyx+pc-part-dataset", [path])):
            names = sorted({each["name"] for each in held if each.get("name")})
            parts += random.Random(5).sample(names, min(len(names), 1200))
    yield "pc_parts", parts


def read_demo_shops(sources: Sources) -> Iterator[tuple[str, list[str]]]:
    """Yield products of demonstrations: electronics, groceries and cosmetics."""
    held = json.loads(sources.read_file("typesense+showcase-ecommerce-store", "scripts/data/ecommerce.json"))
    yield "electronics", [each["name"] for each in held]
    clone = "elastic+elasticsearch-labs"
    path = "supporting-blog-content/building-a-recipe-search-with-elasticsearch/files/output.json"
    yield "groceries", [each["name"] for each in json.loads(sources.read_file(clone, path))]
    titles: list[str] = []
    for each in json.loads(sources.read_file(clone, f"{COSMETICS}/products.json")):
        brand, name = str(each.get("brand") or "").strip(), each["name"].strip()
        known = name.lower().startswith(brand.lower()) or random.Random(name).random() < 0.5
        titles.append(name if known else f"{brand.title()} {name}")
    yield "cosmetics", titles


def read_phones(sources: Sources) -> Iterator[tuple[str, list[str]]]:
    """Yield market names of phones and tablets."""
    with tempfile.NamedTemporaryFile(suffix=".db") as file:
        file.write(sources.read_bytes("jaredrummler+AndroidDeviceNames", "database/android-devices.db"))
        file.flush()
        rows = sqlite3.connect(file.name).execute("select name, codename, model from devices").fetchall()
    names = [name for name, codename, model in rows if name and name not in (codename, model)]
    yield "phones", [name for name in names if re.search(r"[a-z]{2}", name)]


def read_zigbee(packages: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield devices of smart homes: maker and description."""
    titles: list[str] = []
    for path in sorted(packages.glob("zigbee-herdsman-converters/**/devices/*.js")):
        text = path.read_text(encoding="utf-8", errors="replace")
        for found in re.finditer(r'vendor: "([^"\n]+)",\s*description: "((?:[^"\\\n]|\\.)+)"', text):
            vendor, description = found.group(1), found.group(2).replace('\\"', '"')
            titles.append(f"{vendor} {description}" if random.Random(description).random() < 0.6 else description)
    yield "smart_home", titles


def read_brands(sources: Sources) -> Iterator[tuple[str, list[str]]]:
    """Yield names of shops, banks and restaurants all over the world."""
    titles = [
        item.get("tags", {}).get(key) or ""
        for held in load_json(sources.read_matching("osmlab+name-suggestion-index", r"^data/(brands|operators)/.*"))
        for item in held.get("items", [])
        for key in ("name", "name:en", "official_name", "operator", "brand")
    ]
    yield "brands", titles


def read_icons(packages: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield brands that have icons, and titles of specifications of the web."""
    held = json.loads((packages / "simple-icons" / "data" / "simple-icons.json").read_text(encoding="utf-8"))
    listed = list_objects(held) or list_objects(held["icons"])
    titles: list[str] = [each["title"] for each in listed]
    for each in listed:
        aliases = each.get("aliases", {})
        titles += [*aliases.get("aka", []), *aliases.get("loc", {}).values()]
    yield "brands_icons", titles


def read_customs(sources: Sources) -> Iterator[tuple[str, list[str]]]:
    """Yield kinds of goods of customs."""
    text = sources.read_file("datasets+harmonized-system", "data/harmonized-system.csv")
    yield "customs", [row["description"] for row in csv.DictReader(io.StringIO(text))]


def read_food(sources: Sources) -> Iterator[tuple[str, list[str]]]:
    """Yield recipes, drinks and foods."""
    titles = [Path(path).stem for path in sources.find_files("Anduin2017+HowToCook", r"^dishes/.*\.md$")]
    for clone in ("ronaldl29+public-domain-recipes", "LukeSmithxyz+based.cooking"):
        for text in sources.read_matching(clone, r"^content/.*\.md$"):
            found = re.search(r"^title: *(.+)", text, re.M)
            titles += [unquote(found.group(1))] if found else []
    for held in load_json(sources.read_matching("alfg+opendrinks", r"recipes/.*json$")):
        titles.append(str(held.get("name") or ""))
    yield "recipes", titles
    rows = sources.read_bytes("schirinos+nutrient-db", "data/sr28/FOOD_DES.txt").decode("latin-1").splitlines()
    yield "foods_usda", [row.split("^")[2].strip("~") for row in rows if row.count("^") > 3]


def read_presets(sources: Sources) -> Iterator[tuple[str, list[str]]]:
    """Yield kinds of places in many languages."""
    titles: list[str] = []
    paths = sources.find_files("openstreetmap+id-tagging-schema", r"^dist/translations/[^.]+\.json$")
    for path in paths:
        for text in sources.read_files("openstreetmap+id-tagging-schema", [path]):
            for held in json.loads(text).values():
                presets = held.get("presets", {}).get("presets", {})
                names = sorted({each["name"] for each in presets.values() if each.get("name")})
                titles += random.Random(path).sample(names, min(len(names), 260))
    yield "places_kinds", titles


def read_channels(sources: Sources) -> Iterator[tuple[str, list[str]]]:
    """Yield names of channels all over the world."""
    titles: list[str] = []
    for path in sources.find_files("iptv-org+epg", r"^sites/.*channels\.xml$"):
        for text in sources.read_files("iptv-org+epg", [path]):
            names = sorted(set(re.findall(r"<channel [^>]*>([^<_]+)</channel>", text)))
            titles += random.Random(5).sample(names, min(len(names), 150))
    yield "channels", titles


def read_emoji(packages: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield emoji with their names in many languages."""
    titles: list[str] = []
    for language in EMOJI_LANGUAGES:
        path = packages / "emojibase-data" / language / "data.json"
        if not path.exists():
            path = packages / "cldr-annotations-full" / "annotations" / language / "annotations.json"
            if not path.exists():
                continue
            held = json.loads(path.read_text(encoding="utf-8"))["annotations"]["annotations"]
            pairs = [(sign, each["tts"][0]) for sign, each in held.items() if each.get("tts")]
        else:
            held = json.loads(path.read_text(encoding="utf-8"))
            pairs = [(each["emoji"], each["label"]) for each in held if each.get("label")]
        rng = random.Random(language)
        for sign, label in rng.sample(pairs, min(len(pairs), 700)):
            titles.append(rng.choice((f"{sign} {label}", f"{label} {sign}", f"{sign} {label}")))
    yield "emoji_names", titles


def read_colors(packages: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield names of colors."""
    colors = json.loads((packages / "color-name-list" / "dist" / "colornames.json").read_text(encoding="utf-8"))
    yield "colors", [each["name"] for each in colors]


def read_chess(sources: Sources) -> Iterator[tuple[str, list[str]]]:
    """Yield names of chess openings."""
    files = sources.read_matching("lichess-org+chess-openings", r"^[a-e]\.tsv$")
    yield "chess", [line.split("\t")[1] for text in files for line in text.splitlines()[1:] if line.count("\t") >= 2]


def read_roleplay(sources: Sources) -> Iterator[tuple[str, list[str]]]:
    """Yield spells, monsters and things of a role-playing game, in four languages."""
    titles: list[str] = []
    for held in load_json(sources.read_matching("5e-bits+5e-database", r"^src/20.*\.json$")):
        titles += [str(each.get("name") or "") for each in list_objects(held)]
    yield "roleplay", titles


def read_mods(sources: Sources) -> Iterator[tuple[str, list[str]]]:
    """Yield names of mods of a space simulator, and what they do."""
    names: list[str] = []
    for held in load_json(sources.read_matching("KSP-CKAN+CKAN-meta", r"\.ckan$")):
        names += [str(held.get("name") or ""), str(held.get("abstract") or "")]
    yield "mods", names


OF_CLONES: tuple[Callable[[Sources], Iterator[tuple[str, list[str]]]], ...] = (
    *(read_wdc, read_shops, read_demo_shops, read_phones, read_brands, read_customs, read_food, read_presets),
    *(read_channels, read_chess, read_roleplay, read_mods),
)
OF_PACKAGES: tuple[Callable[[Path], Iterator[tuple[str, list[str]]]], ...] = (
    read_zigbee,
    read_icons,
    read_emoji,
    read_colors,
)
