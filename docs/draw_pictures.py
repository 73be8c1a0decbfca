"""Draw the pictures of the documentation: the package by its imports, and a bar chart from a result file.

    python docs/draw_pictures.py

Both are plain SVG, so that no font and no plotting library decides how they look. Tests check that they are up to date.
"""

import ast
from collections.abc import Callable, Iterator, Mapping
from html import escape
from pathlib import Path

import polars as pl

DOCS = Path(__file__).parent
PACKAGE = DOCS.parent / "src" / "cowbird"
PICTURES = DOCS / "pictures"
FONT = "font-family='system-ui, sans-serif'"
INK, LINE, BOX = "#1f2933", "#7b8794", "#e4eef7"
BOX_WIDTH, BOX_HEIGHT, GAP_X, GAP_Y = 112, 34, 20, 46
"""Sizes of the architecture picture, in pixels."""


def find_imports(path: Path) -> Iterator[str]:
    """Yield the modules of the package that a file imports, late imports among them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("cowbird"):
            if node.module == "cowbird":
                yield from (f"cowbird.{alias.name}" for alias in node.names)
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("cowbird."))


def find_rooms() -> dict[str, set[str]]:
    """Return which rooms (sub-packages and single modules) each room imports."""
    names = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir() if not path.name.startswith("_")}
    names = {name for name in names if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()}
    rooms: dict[str, set[str]] = {name: set() for name in names}
    for name in names:
        single = PACKAGE / f"{name}.py"
        for path in [single] if single.is_file() else (PACKAGE / name).rglob("*.py"):
            rooms[name] |= {module.split(".")[1] for module in find_imports(path) if "." in module}
    return {name: (used & names) - {name} for name, used in rooms.items()}


def rank_rooms(rooms: Mapping[str, set[str]]) -> dict[str, int]:
    """Return how many rooms stand below each one at most.

    Raises:
        ValueError: If rooms import each other in a ring, which the picture could not show.
    """
    ranks: dict[str, int] = {}

    def rank(name: str, above: tuple[str, ...]) -> int:
        if name in above:
            raise ValueError(f"These rooms import each other: {' -> '.join((*above, name))}.")
        if name not in ranks:
            ranks[name] = max((rank(used, (*above, name)) + 1 for used in rooms[name]), default=0)
        return ranks[name]

    for name in sorted(rooms):
        rank(name, ())
    return ranks


def drop_implied(rooms: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Return imports without those that also run through another room."""

    def reach(name: str) -> set[str]:
        return rooms[name].union(*(reach(used) for used in rooms[name]))

    return {name: {used for used in into if not any(used in reach(by) for by in into)} for name, into in rooms.items()}


def draw_architecture() -> str:
    """Return the rooms of the package as SVG: an arrow leads to what a room imports."""
    rooms = find_rooms()
    ranks, arrows = rank_rooms(rooms), drop_implied(rooms)
    layers = [sorted(name for name in rooms if ranks[name] == rank) for rank in range(max(ranks.values()), -1, -1)]
    width = max(map(len, layers)) * (BOX_WIDTH + GAP_X) + GAP_X
    height = len(layers) * (BOX_HEIGHT + GAP_Y) - GAP_Y + 2 * GAP_X
    places: dict[str, tuple[float, float]] = {}
    for row, names in enumerate(layers):
        left = (width - len(names) * (BOX_WIDTH + GAP_X) + GAP_X) / 2
        for column, name in enumerate(names):
            places[name] = (left + column * (BOX_WIDTH + GAP_X), GAP_X + row * (BOX_HEIGHT + GAP_Y))
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:g} {height:g}' role='img'>",
        "<title>Rooms of cowbird: an arrow leads to what a room imports, directly or through other rooms</title>",
        "<defs><marker id='head' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='7' markerHeight='7' orient='auto'>"
        f"<path d='M0 0L8 4L0 8z' fill='{LINE}'/></marker></defs>",
        f"<rect width='{width:g}' height='{height:g}' fill='white'/>",
    ]
    for name in sorted(rooms):
        x, y = places[name]
        for used in sorted(arrows[name]):
            to_x, to_y = places[used]
            parts.append(
                f"<path d='M{x + BOX_WIDTH / 2:g} {y + BOX_HEIGHT:g}L{to_x + BOX_WIDTH / 2:g} {to_y:g}' "
                f"stroke='{LINE}' fill='none' marker-end='url(#head)'/>"
            )
    for name in sorted(rooms):
        x, y = places[name]
        parts.append(
            f"<rect x='{x:g}' y='{y:g}' width='{BOX_WIDTH}' height='{BOX_HEIGHT}' rx='5' fill='{BOX}' stroke='{LINE}'/>"
            f"<text x='{x + BOX_WIDTH / 2:g}' y='{y + BOX_HEIGHT / 2 + 5:g}' text-anchor='middle' {FONT} "
            f"font-size='14' fill='{INK}'>{escape(name)}</text>"
        )
    return "\n".join([*parts, "</svg>", ""])


def load_rates() -> list[tuple[str, float, float, float]]:
    """Return the attack success rate after each defense with its interval, worst first."""
    rows = pl.read_csv(DOCS / "results" / "p_scanner_llara_baselines_ml100k.csv", infer_schema_length=None).filter(
        (pl.col("metric") == "asr") & (pl.col("scenario") == "direct") & (pl.col("group") == "trigger")
    )
    found = rows.select("defense", "value", "low", "high").rows()
    return sorted(found, key=lambda row: (-row[1], row[0]))


def draw_rates() -> str:
    """Return the attack success rate after each defense as SVG bars."""
    rates, left, bar, step = load_rates(), 150, 420, 26
    height = len(rates) * step + 62
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {left + bar + 70} {height}' role='img'>",
        "<title>Attack success rate after each defense, LLaRA on MovieLens-100K</title>",
        f"<rect width='{left + bar + 70}' height='{height}' fill='white'/>",
        f"<text x='12' y='24' {FONT} font-size='15' font-weight='600' fill='{INK}'>"
        "How often a planted title is still recommended</text>",
        f"<text x='12' y='42' {FONT} font-size='12' fill='{LINE}'>"
        "attack success rate after each defense; BadRec with 5v on LLaRA, one seed</text>",
    ]
    for number, (name, value, low, high) in enumerate(rates):
        y = 54 + number * step
        fill = "#2f855a" if name == "p_scanner" else "#c05621" if name == "none" else "#a0aec0"
        parts.append(
            f"<text x='{left - 8}' y='{y + 14}' text-anchor='end' {FONT} font-size='13' fill='{INK}'>"
            f"{escape('no defense' if name == 'none' else name)}</text>"
            f"<rect x='{left}' y='{y}' width='{value * bar:.1f}' height='18' fill='{fill}'/>"
            f"<path d='M{left + low * bar:.1f} {y + 9}H{left + high * bar:.1f}' stroke='{INK}'/>"
            f"<text x='{left + high * bar + 6:.1f}' y='{y + 14}' {FONT} font-size='12' fill='{INK}'>{value:.3f}</text>"
        )
    return "\n".join([*parts, "</svg>", ""])


DRAWINGS: dict[str, Callable[[], str]] = {"architecture.svg": draw_architecture, "defenses.svg": draw_rates}
"""Pictures by file name."""

if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for file, draw in DRAWINGS.items():
        (PICTURES / file).write_text(draw(), encoding="utf-8")
