"""Headlines, topics, descriptions and links, out of public sources; `more_title_sources.py` writes them."""

import csv
import gzip
import io
import json
import random
import re
from collections.abc import Callable, Iterator

from title_clones import Sources, list_objects, load_json, unquote

AWESOME = (
    *("jaywcjlove+awesome-mac", "josephmisiti+awesome-machine-learning", "rust-unofficial+awesome-rust"),
    *("sindresorhus+awesome-nodejs", "jnv+lists", "awesomedata+awesome-public-datasets", "alebcay+awesome-shell"),
    *("avelino+awesome-go", "public-apis+public-apis"),
)
POEMS = r"^(全唐诗/poet|五代诗词|元曲|诗经).*json$"
"""Files of poems of Tang, Song, Yuan and before."""


def read_chinese(sources: Sources) -> Iterator[tuple[str, list[str]]]:
    """Yield headlines, topics, questions, sayings and poems in Chinese."""
    clone = "649453932+Chinese-Text-Classification-Pytorch"
    texts = [sources.read_file(clone, f"THUCNews/data/{name}.txt") for name in ("dev", "test")]
    yield "news_zh", [line.rsplit("\t", 1)[0] for text in texts for line in text.splitlines()]
    for name, clone in (
        ("topics_zh", "justjavac+weibo-trending-hot-search"),
        ("questions_zh", "justjavac+zhihu-trending-hot-questions"),
    ):
        titles = [
            each.get("title") or ""
            for held in load_json(sources.read_matching(clone, r"^raw/.*json$"))
            for each in held
        ]
        yield name, titles
    sayings = json.loads(sources.read_file("pwxcoo+chinese-xinhua", "data/xiehouyu.json"))
    yield "sayings_zh", [f"{each['riddle']}——{each['answer']}" for each in sayings]
    poems: list[str] = [
        each.get("title") or each.get("rhythmic") or ""
        for held in load_json(sources.read_matching("chinese-poetry+chinese-poetry", POEMS))
        for each in list_objects(held)
    ]
    yield "poems_zh", poems
    rows = sources.read_file("timqian+chinese-independent-blogs", "README.md").splitlines()
    cells = [[cell.strip() for cell in row.strip("| ").split(" | ")] for row in rows if row.count("|") >= 4]
    yield "blogs_zh", [row[1] for row in cells if len(row) >= 3 and row[2].startswith("http")]


def read_headlines(sources: Sources) -> Iterator[tuple[str, list[str]]]:
    """Yield headlines in English, and well-known repositories with what they say of themselves."""
    titles: list[str] = []
    for name in ("clickbait", "non_clickbait"):
        data = sources.read_bytes("bhargaviparanjape+clickbait", f"dataset/{name}_data.gz")
        lines = [line for line in gzip.decompress(data).decode("utf-8", "replace").splitlines() if line.strip()]
        titles += random.Random(5).sample(lines, min(len(lines), 7500))
    yield "headlines", titles
    repositories: list[str] = []
    for path in sources.find_files("EvanLi+Github-Ranking", r"^Data/github-ranking-20\d\d-(03|09)-01\.csv$"):
        for row in csv.DictReader(io.StringIO(sources.read_file("EvanLi+Github-Ranking", path))):
            repositories.append(re.sub(r":[a-z0-9_+-]+: ?", "", row.get("description") or ""))
    yield "repositories", repositories


def read_agents(sources: Sources) -> Iterator[tuple[str, list[str]]]:
    """Yield titles and descriptions of assistants in many languages."""
    titles: list[str] = []
    for held in load_json(sources.read_matching("lobehub+lobe-chat-agents", r"^locales/.*json$")):
        meta = held.get("meta", {})
        title, description = str(meta.get("title") or ""), str(meta.get("description") or "")
        titles += [title, description] if random.Random(description).random() < 0.25 else [title]
    yield "assistants", titles


def read_scoop(sources: Sources) -> Iterator[tuple[str, list[str]]]:
    """Yield descriptions of programs for Windows and packages of OCaml."""
    yield (
        "scoop",
        [
            str(each.get("description") or "")
            for clone in ("ScoopInstaller+Extras", "ScoopInstaller+Main")
            for each in load_json(sources.read_matching(clone, r"^bucket/.*json$"))
        ],
    )
    titles: list[str] = []
    for text in sources.read_matching("ocaml+opam-repository", r"^packages/.*/opam$"):
        found = re.search(r'^synopsis:\s*"((?:[^"\\]|\\.)+)"', text, re.M)
        titles += [re.sub(r"\\\n?\s*", "", found.group(1).replace('\\"', '"'))] if found else []
    yield "opam", titles


def read_standards(sources: Sources) -> Iterator[tuple[str, list[str]]]:
    """Yield titles of standards."""
    titles: list[str] = []
    for held in load_json(sources.read_matching("tobie+specref", r"^refs/.*json$")):
        titles += [str(each["title"]) for each in list_objects(list(held.values())) if each.get("title")]
    yield "standards", titles


def read_gallery(sources: Sources) -> Iterator[tuple[str, list[str]]]:
    """Yield former titles of works of the National Gallery of Art, and its talks."""
    text = sources.read_file("NationalGalleryOfArt+opendata", "data/objects_historical_data.csv")
    rows = csv.DictReader(io.StringIO(text))
    titles = [row["forwardtext"] or "" for row in rows if row["datatype"] == "previous_title"]
    text = sources.read_file("NationalGalleryOfArt+opendata", "data/media_items.csv")
    talks = [row["title"] or "" for row in csv.DictReader(io.StringIO(text))]
    yield "art_nga", [*titles, *(talk for talk in talks if not re.search("[Ãæåâ]", talk))]


def read_laws(sources: Sources) -> Iterator[tuple[str, list[str]]]:
    """Yield titles of German laws."""
    titles: list[str] = []
    for text in sources.read_matching("bundestag+gesetze", r"index\.md$"):
        found = re.search(r"^Title: (.+(?:\n  .+)*)", text, re.M)
        titles += [unquote(found.group(1))] if found else []
    yield "laws_de", titles


def read_events(sources: Sources) -> Iterator[tuple[str, list[str]]]:
    """Yield conferences, events and exhibitions."""
    held = load_json(sources.read_matching("tech-conferences+conference-data", r"^conferences/.*json$"))
    yield "conferences", [each.get("name") or "" for listed in held for each in listed]
    shows = json.loads(sources.read_file("wcmaart+collection", "Exhibitions-utf8.json"))
    events = json.loads(sources.read_file("wcmaart+collection", "Events-utf8.json"))
    rows = csv.DictReader(io.StringIO(sources.read_file("WaltersArtMuseum+api-thewalters-org", "exhibitions.csv")))
    titles = [
        *(each.get("ExhTitle") or "" for each in shows),
        *(each.get("eventName") or "" for each in events["Events"]),
        *(row["ExhTitle"] for row in rows),
    ]
    yield "museum_events", [text for text in titles if not re.search(r"\b[A-Z]{3,4} ?\d|, [fsw]\d\d\b", text)]


def read_apps(sources: Sources) -> Iterator[tuple[str, list[str]]]:
    """Yield apps with what they do, and links of lists of links."""
    ios = json.loads(sources.read_file("dkhamsing+open-source-ios-apps", "contents.json"))["projects"]
    titles = [each.get(key) or "" for each in ios for key in ("title", "description")]
    for text in sources.read_matching("AppImage+appimage.github.io", r"^apps/.*\.md$"):
        found = re.search(r"^description: (.+)", text, re.M)
        titles += [unquote(found.group(1))] if found else []
    yield "apps", titles
    links: list[str] = []
    for clone in AWESOME:
        for text in sources.read_matching(clone, r"^(README|readme)[^/]*\.(md|rst)$"):
            for line in text.splitlines():
                links += _read_link(line)
    yield "links", links


def _read_link(line: str) -> Iterator[str]:
    """Yield the text of a line in a list of links: its name and what it says of it."""
    found = re.match(r"\s*[-*|] *\[([^\]!]{2,80})\]\([^)]*\)\s*(.*)", line)
    if not found:
        return
    name, rest = found.group(1), found.group(2)
    rest = re.sub(r"!?\[!?\[[^\]]*\]\([^)]*\)\]\([^)]*\)|!\[[^\]]*\](\([^)]*\)|\[[^\]]*\])", "", rest)
    rest = re.sub(r"\[([^\]]*)\](\([^)]*\)|\[[^\]]*\])", r"\1", rest).split(" | ")
    text = rest[0].strip(" |") or (rest[1].strip(" |") if len(rest) > 1 else "")
    text = re.sub(r"[`*]|<[^>]+>", "", text).strip()
    if not text or "](" in text or "![" in text:
        yield name
        return
    dash = "" if re.match(r"[-–—:(]", text) else "- "
    yield f"{name} {dash}{text}"


OF_CLONES: tuple[Callable[[Sources], Iterator[tuple[str, list[str]]]], ...] = (
    *(read_chinese, read_headlines, read_agents, read_scoop, read_standards, read_gallery, read_laws, read_events),
    read_apps,
)
