"""Made-up catalogues in random forms, read back and held against the table that they were written from.

    python benchmarks/fuzz_forms.py --inputs 20000 --seed 0 --out docs/results/fuzz_forms.json

A form is a draw of encoding, separator, quotes, line ends, compression, blank lines and repeated headers, for delimited
text; JSON Lines, JSON and Parquet are drawn as well. In half of the texts the form is told by options, elsewhere
it is sniffed. Each file is also read with blocks of a few bytes. A row that is lost, moved, made up or changed is a
failure.
"""

import argparse
import bz2
import gzip
import json
import lzma
import random
import shlex
import sys
import tempfile
from collections import Counter
from pathlib import Path

import polars as pl
import pyarrow as pa

from cowbird.files import write_text
from cowbird.ingest import records
from cowbird.ingest.options import ReadOptions, use_options
from cowbird.notices import collect_notices
from cowbird.scanning.reading import open_catalog

WORDS = ("Red", "Harbor", "lamp", "Steel", "Café", "Größe", "naïve", "2024", "x", "de", "O'Neill", "(1995)", "Night")
SIGNS = (",", ";", "|", '"', "'", "\t", " - ", "\\", "=", "\n", "\r\n", "", " ")
WIDE = ("東京", "Москва", "🎧", "\u200b")
PACKERS = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda raw: pa.Codec("zstd").compress(raw, asbytes=True),
}


def make_title(draw: random.Random, signs: bool, wide: bool) -> str:
    """Return a title of some words, which may hold signs that are parts of forms."""
    parts = draw.choices(WORDS + (WIDE if wide else ()), k=draw.randint(1, 5))
    if signs and draw.random() < 0.5:
        parts.insert(draw.randint(0, len(parts)), draw.choice(SIGNS))
    return " ".join(parts).strip() or "x"


def quote_cell(cell: str, separator: str, how: str, draw: random.Random) -> str:
    """Return a cell as it stands in a file."""
    needed = any(sign in cell for sign in (separator, '"', "\n", "\r"))
    if how == "none" or not (needed or how == "all" or (how == "some" and draw.random() < 0.3)):
        return cell
    if how == "backslash":
        return '"' + cell.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return '"' + cell.replace('"', '""') + '"'


def write_text_form(draw: random.Random, folder: Path) -> tuple[Path, ReadOptions, list[tuple[str, str]]]:
    """Write a delimited file; return it, what is told of it, and its rows."""
    told = draw.random() < 0.5
    encoding = draw.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16", "cp1252"])
    separator = draw.choice([",", ";", "\t", "|"])
    how = draw.choice(["needed", "needed", "some", "all", *(("backslash", "none") if told else ())])
    ends = draw.choice(["\n", "\n", "\r\n", *(("\r",) if how == "none" or not told else ())])
    signs = how != "none" and ends != "\r" and (told or separator == ",")
    rows = [
        (str(nth * 7), make_title(draw, signs, encoding != "cp1252")) for nth in range(draw.choice([1, 2, 5, 30, 200]))
    ]
    if how == "backslash":  # a backslash outside of quotes stands for itself
        rows = [(id_, title.replace("\\", "")) for id_, title in rows]
    header = separator.join(quote_cell(cell, separator, how, draw) for cell in ("id", "title"))
    lines = [header]
    for nth, row in enumerate(rows):
        lines.append(separator.join(quote_cell(cell, separator, how, draw) for cell in row))
        if draw.random() < 0.02:
            lines.append("")
        if nth > 1 and draw.random() < 0.01:
            lines.append(header)
    text = ends.join(lines) + draw.choice([ends, ""])
    packing = draw.choice(list(PACKERS))
    path = folder / f"a{draw.choice(['.csv', '.txt', '.tsv'] if separator == chr(9) else ['.csv', '.txt'])}{packing}"
    path.write_bytes(PACKERS[packing](text.encode(encoding)))
    quote = {"backslash": "backslash", "none": "none"}.get(how, '"')
    options = ReadOptions(encoding=encoding, separator=separator, quote=quote) if told else ReadOptions()
    return path, options, rows


def write_other_form(draw: random.Random, folder: Path) -> tuple[Path, ReadOptions, list[tuple[str, str]]]:
    """Write JSON Lines, a JSON array or Parquet."""
    rows = [(str(nth * 7), make_title(draw, True, True)) for nth in range(draw.choice([1, 3, 40, 600]))]
    objects = [{"id": id_, "title": title} for id_, title in rows]
    kind, packing = draw.choice(["jsonl", "json", "parquet"]), draw.choice(list(PACKERS))
    if kind == "parquet":
        path = folder / "a.parquet"
        frame = pl.DataFrame(objects)
        if draw.random() < 0.5:
            frame = frame.with_columns(pl.col("title").cast(pl.Categorical))
        frame.write_parquet(path, row_group_size=draw.choice([1, 7, 100_000]))
        return path, ReadOptions(), rows
    text = json.dumps(objects) if kind == "json" else "".join(json.dumps(each) + "\n" for each in objects)
    path = folder / f"a.{kind}{packing}"
    path.write_bytes(PACKERS[packing](text.encode()))
    return path, ReadOptions(), rows


def read_back(path: Path, options: ReadOptions) -> list[tuple[int, str | None, str, str]]:
    """Read a catalogue."""
    with use_options(options), collect_notices():
        return [tuple(row) for row in open_catalog(path).read_rows()]


def try_form(seed: int, folder: Path) -> tuple[str, str]:
    """Write and read one file; return its kind, and what is wrong or nothing."""
    draw = random.Random(seed)
    write = write_text_form if draw.random() < 0.8 else write_other_form
    path, options, rows = write(draw, folder)
    kind = path.suffixes[0].removeprefix(".") + (", told" if options != ReadOptions() else "")
    wanted = [(nth, id_, title, "") for nth, (id_, title) in enumerate(rows, 1)]
    usual = records.BLOCK_BYTES
    try:
        for size in (usual, draw.randint(1, 60)):
            records.BLOCK_BYTES = size
            found = read_back(path, options)
            if found != wanted:
                odd = next((pair for pair in zip(found, wanted, strict=False) if pair[0] != pair[1]), None)
                return kind, f"seed {seed}: {path.name}, {options}: {len(found)} of {len(wanted)} rows; first: {odd}"
    except Exception as error:
        return kind, f"seed {seed}: {path.name}, {options}: {type(error).__name__} {error}"
    finally:
        records.BLOCK_BYTES = usual
        path.unlink()
    return kind, ""


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    counts, failures = Counter[str](), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        for nth in range(options.inputs):
            kind, problem = try_form(options.seed + nth, Path(folder))
            counts[kind] += 1
            if problem:
                failures.append(problem)
                print(problem, flush=True)
    command = f"python benchmarks/fuzz_forms.py {shlex.join(sys.argv[1:])}"
    record = {"command": command, "inputs": dict(sorted(counts.items())), "failures": failures}
    print(json.dumps(record, indent=1))
    if options.out:
        write_text(options.out, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
