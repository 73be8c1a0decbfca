"""A folder of findings in parts: Parquet files in the order of the catalogue, and a record of what they hold.

While a scan is at work, its parts lie in `OUT.partial/`, each with a record beside it. A part that has one is whole, so
a scan that was interrupted, or one of whose workers died, makes the others and no part twice. At the end the records
become one, `scan.json`, and the folder gets its name.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from cowbird.errors import OutageError, UserError
from cowbird.files import (
    PARTIAL_SUFFIX,
    hash_file,
    replace_atomically,
    share_folder,
)
from cowbird.locks import LOCK_FILE
from cowbird.notices import Notice, NoticeRank
from cowbird.processes import hold_interrupts
from cowbird.scanning.partial_folder import SCAN_KEPT_HINT, PartialFolder, explain_scan_errors
from cowbird.storage import read_sealed_json, write_sealed_json

SCAN_FILE, SKIPPED_FILE, KEY_FILE = "scan.json", "skipped.csv", "key.json"
"""What tells of a finished folder, the rows that could not be read, and what is scanned while it goes on."""
PARTS_VERSION = 1
"""Grows when the folder's form changes."""
MAX_NAME_BYTES = 255
"""Bytes of a name that file systems take."""
_ASIDE = ".replaced"
_COUNTS = ("findings", "rows", "empty", "review", "allowed", "judged")
_OWN_NAMES = (SCAN_FILE, SKIPPED_FILE, KEY_FILE, LOCK_FILE)
_PART_NAME = re.compile(r"part-\d{5,}\.(parquet|json)")
PartRecord: TypeAlias = dict[str, Any]
"""What is told of a part: the fields of `JudgedPart` but the table."""


def name_part(nth: int) -> str:
    """Return the name of a part's file."""
    return f"part-{nth:05d}.parquet"


def is_parts_folder(path: Path) -> bool:
    """Tell whether findings in parts are written to a path: its name has no ending."""
    return not path.suffix


def list_finding_files(folder: Path) -> list[Path]:
    """Return the parts of a finished folder, in order.

    Raises:
        UserError: If it holds no findings, or one is missing.
    """
    hint = "Give the folder that cowbird scan wrote with --out."
    if not (folder / SCAN_FILE).is_file():
        raise UserError(f"'{folder}' is no folder of findings.", hint)
    record = read_sealed_json(folder / SCAN_FILE, hint)
    try:
        paths = [folder / Path(str(part["file"])).name for part in record["parts"]]
    except (KeyError, TypeError):
        raise UserError(f"'{folder / SCAN_FILE}' is damaged.", hint) from None
    for path in paths:
        if not path.is_file():
            raise UserError(f"'{folder}' lacks {path.name}, which {SCAN_FILE} names.", "Scan again.")
    return paths


def check_parts_output(out: Path, catalog: Path) -> None:
    """Look before hours of work whether findings can be written to a folder, and nothing of another kind is lost.

    Raises:
        UserError: If something else stands there or beside it, or the catalogue lies in it, or around it.
    """
    hint = "Name a new folder for parts in Parquet, or a file that ends in .csv, .jsonl or .parquet."
    if out.name in ("", "..") or len(os.fsencode(f"{out.name}{_ASIDE}")) > MAX_NAME_BYTES:
        raise UserError(f"Findings can't be written to '{out}': it is no name of a new folder.", hint)
    for place, what in ((out, ""), (_place_aside(out), " An older result is put there for a moment.")):
        if (place.is_symlink() or place.exists()) and not _is_result(place):
            kind = (
                "a link"
                if place.is_symlink()
                else "a folder with other files"
                if place.is_dir()
                else "a file without an ending"
            )
            raise UserError(f"Findings can't be written to '{out}': '{place}' is {kind}.{what}", hint)
    partial = out.with_name(f"{out.name}.partial")
    if partial.is_dir() and not all(map(_is_own, partial.iterdir())):
        raise UserError(f"Findings can't be written to '{out}': '{partial}' holds files of another kind.", hint)
    place, whole = out.resolve(), catalog.resolve()
    if place in (whole, *whole.parents):
        raise UserError(f"'{catalog}' lies in the folder for the findings, '{out}'.", "Choose another folder for them.")
    if catalog.is_dir() and whole in place.parents:
        raise UserError(f"'{out}' lies in the catalogue's folder.", "Choose another folder for the findings.")


def _place_aside(out: Path) -> Path:
    """Return where an older result is put while a new one takes its place."""
    return out.with_name(f"{out.name}{_ASIDE}")


def _is_own(path: Path) -> bool:
    """Tell whether a file is one that a scan in parts writes."""
    name = path.name
    return name in _OWN_NAMES or _PART_NAME.fullmatch(name) is not None or name.endswith((".partial", PARTIAL_SUFFIX))


def _is_result(folder: Path) -> bool:
    """Tell whether a folder is empty, or holds what a scan in parts wrote, its record and nothing else."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    if not names:
        return True
    try:
        parts = {str(part["file"]) for part in read_sealed_json(folder / SCAN_FILE)["parts"]}
    except (UserError, OSError, KeyError, TypeError):
        return False
    return names <= {*_OWN_NAMES, *parts, *(f"{Path(name).stem}.json" for name in parts)}


class JudgedPart(NamedTuple):
    """What is found in some rows in sequence."""

    table: bytes
    """The findings, a Parquet file."""
    findings: int
    """How many they are."""
    rows: int
    """How many rows there are, readable or not."""
    empty: int
    """Those without a title."""
    review: int
    """Those for review."""
    allowed: int
    """Those that are suspicious, but allowed."""
    judged: int
    """Those whose title was judged."""
    tally: dict[str, Any]
    """What flagged ones have in common; see `FindingTally.to_record`."""
    skipped: list[tuple[int, str]]
    """The number of each row that could not be read, and why."""
    notices: list[Notice]
    """What was done otherwise than a reader may think."""


class PartsWriter(PartialFolder):
    """The parts of a scan that goes on; a context manager. Arguments as in `PartialFolder`."""

    def _begin(self) -> None:
        aside = _place_aside(self.out)
        if not self.out.exists() and _is_result(aside):  # a scan was killed while it took its place
            aside.rename(self.out)
        if not (self._resume and self._read_key() == self._key):
            self._clear()
            write_sealed_json(self.folder / KEY_FILE, {"version": PARTS_VERSION, "key": self._key})

    def _read_key(self) -> str:
        try:
            held: Any = read_sealed_json(self.folder / KEY_FILE)
            return str(held["key"]) if held["version"] == PARTS_VERSION else ""
        except OutageError:
            raise
        except (UserError, KeyError, TypeError):
            return ""

    def _clear(self) -> None:
        for pattern in ("part-*.parquet", "part-*.json", KEY_FILE, SKIPPED_FILE, SCAN_FILE):
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)

    def _place_record(self, nth: int) -> Path:
        return self.folder / f"part-{nth:05d}.json"

    def find(self, nth: int) -> PartRecord | None:
        """Return what is told of a part that is done; `None` if it is not, or is damaged."""
        place = self._place_record(nth)
        if not place.is_file():
            return None
        try:
            record: PartRecord = read_sealed_json(place)
            same = hash_file(self.folder / name_part(nth)) == record["sha256"]
            whole = same and all(type(record[name]) is int for name in _COUNTS)
            return record if whole else None
        except OutageError:
            raise
        except (UserError, OSError, KeyError, TypeError):
            return None

    def add(self, nth: int, part: JudgedPart) -> PartRecord:
        """Keep a part.

        Raises:
            OutageError: If it can't be written.
        """
        with replace_atomically(self.folder / name_part(nth)) as partial:
            partial.write_bytes(part.table)
        record: PartRecord = {**part._asdict(), "sha256": hashlib.sha256(part.table).hexdigest()}
        del record["table"]
        record["notices"] = [[int(each.rank), each.text, each.low, each.high, each.one] for each in part.notices]
        write_sealed_json(self._place_record(nth), record)
        return record

    def iterate_records(self, parts: int) -> Iterator[PartRecord]:
        """Yield what is told of each part, in order.

        Raises:
            UserError: If one is damaged.
        """
        for nth in range(parts):
            record = self.find(nth)
            if record is None:
                raise UserError(f"'{self._place_record(nth)}' is damaged.", "Scan again; other parts are kept.")
            yield record

    def finish(self, parts: int, about: Mapping[str, Any]) -> Path | None:
        """Give the folder its name, in the place of an older one.

        Args:
            parts: How many parts there are.
            about: What `scan.json` tells beside them.

        Returns:
            Where the rows stand that could not be read; `None` if there were none.

        Raises:
            UserError: If it can't be written; the scan can then be resumed.
        """
        listed, before, skipped = list[PartRecord](), 0, False
        with explain_scan_errors(self.out):
            with replace_atomically(self.folder / SKIPPED_FILE) as partial, partial.open("w", encoding="utf-8") as file:
                file.write("row,reason\n")
                for nth, record in enumerate(self.iterate_records(parts)):
                    told = {name: record[name] for name in _COUNTS}
                    listed.append({"file": name_part(nth), "first_row": before + 1, **told})
                    before += record["rows"]
                    skipped = skipped or bool(record["skipped"])
                    file.writelines(
                        f"{row},{json.dumps(reason, ensure_ascii=False)}\n" for row, reason in record["skipped"]
                    )
            if not skipped:
                (self.folder / SKIPPED_FILE).unlink()
            write_sealed_json(self.folder / SCAN_FILE, {"version": PARTS_VERSION, **about, "parts": listed})
            share_folder(self.folder)
            self._swap()
            for path in (*map(self._place_record, range(parts)), self.folder / KEY_FILE):
                (self.out / path.name).unlink()
        return self.out / SKIPPED_FILE if skipped else None

    def _swap(self) -> None:
        """Put the folder in the place of an older one. Interrupted, it can be done again."""
        aside = _place_aside(self.out)
        if self.out.exists() and aside.exists():
            self._remove_result(aside)
        with hold_interrupts():
            if self.out.exists():
                self.out.rename(aside)
            self.folder.rename(self.out)  # with its lock: another scan must not find the folder without one
            (self.out / LOCK_FILE).unlink(missing_ok=True)
        self.__exit__()
        if aside.exists():
            self._remove_result(aside)

    def _remove_result(self, folder: Path) -> None:
        """Remove an older result, its record last: killed in between, it is still known as one. Else tell."""
        if not _is_result(folder):
            raise UserError(f"'{folder}' stands in the way, and is no older result.", f"Move it away. {SCAN_KEPT_HINT}")
        for path in sorted(folder.iterdir(), key=lambda path: path.name == SCAN_FILE):
            path.unlink()
        folder.rmdir()

    def discard(self) -> None:
        """Remove what is kept."""
        with suppress(OSError):
            self._clear()
        self.__exit__()
        shutil.rmtree(self.folder, ignore_errors=True)


def sum_notices(groups: Sequence[Sequence[Sequence[Any]]]) -> list[Notice]:
    """Return notices of parts, each once, with the counts of all parts together."""
    counts: dict[tuple[int, str, str], int | None] = {}
    for group in groups:
        for rank, text, low, _, *one in group:  # parts of an older version have no sentence for one
            key = (rank, text, *one) if one else (rank, text, "")
            known = counts.get(key)
            counts[key] = low if known is None else known + (low or 0)
    return [Notice(NoticeRank(rank), text, count, count, one) for (rank, text, one), count in counts.items()]
