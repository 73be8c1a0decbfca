"""Attack: small files that need much memory or time, hostile references, and titles that a spreadsheet would run."""

import gzip
import json
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

from .harness import Outcome, Place

RULES = ("--detector", "character_rules", "--quiet")
ANY = (0, 1, 2, 3)
"""What a scan may return, if it ends in words and in bounded memory."""


def attack_memory(place: Place) -> None:
    """Scan bombs; each must end, in less than a gigabyte."""
    work, out = place.work, place.work / "found.csv"
    for name, make in (
        ("string.parquet", _make_long_string),
        ("repeats.parquet", _make_repeats),
        ("keys.jsonl", _make_keys),
        ("deep.jsonl", _make_depth),
        ("line.csv.gz", _make_line),
        ("field.csv.gz", _make_field),
        ("quotes.csv.gz", _make_quotes),
        ("header.csv", _make_header),
    ):
        make_apart(make, work / name)
        size = (work / name).stat().st_size >> 10
        place.attack("bombs", f"scan {name} ({size:,} KB)", ANY, "scan", name, "--out", out, *RULES,
                     out=[out, *_list_beside(out)], timeout=600)  # fmt: skip
        _clear(out)


def make_apart(make: Callable[[Path], None], path: Path) -> None:
    """Make a file in a process of its own: what this one once held would be counted for its children."""
    maker = get_context("fork").Process(target=make, args=(path,))
    maker.start()
    maker.join()


def attack_references(place: Place) -> None:
    """Scan with references that are no clean titles of the same source."""
    work, out = place.work, place.work / "found.csv"
    (work / "items.csv").write_text("title\n" + "".join(f"Plain title {n}\n" for n in range(200)))
    (work / "one.csv").write_text("title\nPlain title 1\n")
    (work / "none.csv").write_text("title\n")
    (work / "binary.csv").write_bytes(bytes(range(256)) * 100)
    (work / "codes.csv").write_text("title\n" + "\x1b]0;owned\x07\u202eevil\n" * 300)
    _make_line(work / "line.csv.gz")
    for name, codes in (
        ("one.csv", ANY), ("none.csv", (2,)), ("binary.csv", (2,)), ("codes.csv", ANY), ("line.csv.gz", ANY),
        ("items.csv", ANY), (".", (2,)), ("missing.csv", (2,)),
    ):  # fmt: skip
        place.attack("reference", f"--reference {name}", codes, "scan", "items.csv", "--out", out, "--reference", name,
                     "--detector", "character_rules", "--fpr", "0.01", out=[out, *_list_beside(out)],
                     check=_look_for_codes, timeout=600)  # fmt: skip
        _clear(out)


def attack_sheets(place: Place) -> None:
    """Scan titles that are formulas; no cell of the findings may begin like one."""
    out = place.work / "found.csv"
    starts = ["=", "+", "-", "@", ";=", "\t=", "a;=", '"=', "\u00a0=", ";;+", "a\t=", "\uff1d"]
    titles = [f'{start}HYPERLINK("http://x";"y") \u202e\u200b' for start in starts]
    rows = "".join(f"{json.dumps({'id': title, 'title': title})}\n" for title in titles)
    (place.work / "sheet.jsonl").write_text(rows)

    def check(outcome: Outcome) -> list[str]:
        text = out.read_text() if out.exists() else ""
        cells = [cell.strip('" \t\u00a0') for line in text.splitlines() for cell in line.replace("\t", ";").split(";")]
        return [f"a cell {cell[:20]!r}" for cell in cells if cell[:1] in ("=", "@", "+")][:1] + _look_for_codes(outcome)

    place.attack("sheets", f"{len(titles)} titles that are formulas", (1,), "scan", "sheet.jsonl", "--out", out,
                 "--detector", "character_rules", out=[out], check=check)  # fmt: skip
    _clear(out)


def _look_for_codes(outcome: Outcome) -> list[str]:
    return ["a terminal sequence"] if "\x1b" in outcome.said or "\u202e" in outcome.said else []


def _list_beside(out: Path) -> list[Path]:
    return [out.with_name(f"{out.name}.{end}") for end in ("skipped.csv", "partial")]


def _clear(out: Path) -> None:
    for path in (out, *_list_beside(out)):
        if path.is_file():
            path.unlink()


def _make_long_string(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"title": pa.array(["a" * (1 << 30), "b"], pa.large_string())})
    pq.write_table(table, path, compression="zstd")


def _make_repeats(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.array(["a" * (1 << 22)]).dictionary_encode().dictionary
    many = pa.DictionaryArray.from_arrays(pa.array([0] * 4096, pa.int32()), text)
    pq.write_table(pa.table({"title": many}), path, compression="zstd")


def _make_keys(path: Path) -> None:
    row = "{" + ",".join(f'"{n}":0' for n in range(900_000)) + ',"title":"x"}\n'
    path.write_text('{"title": "a"}\n' + row * 3)


def _make_depth(path: Path) -> None:
    path.write_text('{"title": "a"}\n{"title": ' + "[" * 4_000_000 + "\n")


def _make_line(path: Path) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b"title\nplain\n")
        for _ in range(1000):
            file.write(b"a" * (1 << 20))


def _make_field(path: Path) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b'title\n"')
        for number in range(1 << 15):
            file.write(b"%08d " % number + b"b c " * 122 + b"zz\n")
        file.write(b'"\n')


def _make_quotes(path: Path) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b"title\n")
        for number in range(1 << 15):
            file.write(b'"%d' % (number % 7) + b'""' * 250 + b"\n")


def _make_header(path: Path) -> None:
    path.write_bytes(b"a," * 40_000 + b"title\n" + b"1," * 40_000 + b"x\n")
