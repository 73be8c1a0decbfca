"""Findings in a SQLite file beside the findings: read once, grouped, and shown in pages, with the decisions about them.

Findings that were flagged for the same text and the same kind of reason are a group. `cowbird.review.store` keeps
decisions.
"""

import hashlib
import sqlite3
import threading
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cowbird.errors import OutageError, UserError
from cowbird.faults import FULL_DISK_HINT, explain_write_errors
from cowbird.review.grouping import (
    REVIEW_SCHEMA,
    GroupedFindings,
    fill_base,
    group_findings,
    list_early,
    make_mark,
    read_findings,
    roll_back,
)
from cowbird.scanning.parts_folder import SCAN_FILE

if TYPE_CHECKING:
    import polars as pl

REVIEW_SUFFIX = ".review.sqlite"
"""What is added to the name of the findings for the file of decisions."""
REVIEW_VERSION = 1
"""Grows when the file's form changes."""
Choice = Literal["accepted", "dismissed"]
"""What a person says: it is planted, or it is honest text."""
Target = Literal["group", "title"]
"""What a decision is about."""
GroupState = Literal["all", "open", "accepted", "dismissed"]
"""Which groups are shown."""


class GroupPage(NamedTuple):
    """Some groups, and how many there are."""

    total: int
    """How many groups the search and the state leave."""
    rows: list[dict[str, Any]]
    """Some of them: id, key, mark, fragment, reason, tier, many, best, choice, and a finding as an example."""


class FindingPage(NamedTuple):
    """Some findings of a group, and how many there are."""

    total: int
    """How many the group has."""
    rows: list[dict[str, Any]]
    """Some of them, with a mark of each title and the choice on it."""


def list_store_files(findings: Path) -> list[Path]:
    """Return the files of decisions about findings: the database, and what SQLite keeps beside it."""
    return [findings.with_name(f"{findings.name}{REVIEW_SUFFIX}{end}") for end in ("", "-journal", "-wal", "-shm")]


class GroupedStore:
    """The findings of a file, in groups.

    Args:
        findings: The file.
        index_later: Whether findings that were read for the first time are grouped in a thread of its own. Groups are
            listed once they are known; whoever asks for more waits until they are in the file of decisions. What goes
            wrong there is told to whoever asks.

    Raises:
        UserError: If it holds no findings, or the file of decisions is not one.
        OutageError: If that can't be written.
    """

    def __init__(self, findings: Path, *, index_later: bool = False) -> None:
        self.findings = findings
        self.path = findings.with_name(findings.name + REVIEW_SUFFIX)
        self._inner = threading.RLock()
        self._indexing: threading.Thread | None = None
        self._failed: Exception | None = None
        self._grouped: GroupedFindings | None = None
        self._known = threading.Event()
        if not (findings / SCAN_FILE).is_file() and not findings.is_file():
            read_findings(findings)  # says what is wrong
        if self.path.is_symlink():
            raise UserError(f"'{self.path}' is a link.", "Remove it, or copy the findings elsewhere.")
        fresh = not self.path.exists()
        try:
            self._open(index_later)
        except UserError as error:
            if fresh and not isinstance(error, OutageError):  # findings were refused, and decided is nothing yet
                self._base.close()
                for path in list_store_files(findings):
                    path.unlink(missing_ok=True)
            raise

    def _open(self, index_later: bool) -> None:
        """Open the file of decisions, and read findings that are not in it."""
        with self._explain_errors():
            self._base = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None, timeout=5)
            self._base.row_factory = sqlite3.Row
            self._base.execute("pragma journal_mode = wal")
            self._base.executescript(REVIEW_SCHEMA)
            seal = self._find_new_seal()
            if seal is None:
                return
            table = read_findings(self.findings)
            if not index_later:
                fill_base(self._base, *group_findings(table), seal)
                return
        self._indexing = threading.Thread(target=self._fill_later, args=(table, seal), name="index")
        self._indexing.start()

    @contextmanager
    def _explain_errors(self) -> Generator[None]:
        with explain_write_errors(self.path):
            if not self.path.exists():
                self.path.touch()  # a folder that can't be written says so; SQLite would not
            try:
                yield
            except sqlite3.OperationalError as error:
                raise self._explain_outage(error) from None
            except sqlite3.DatabaseError as error:
                raise UserError(
                    f"'{self.path}' should hold decisions of a review: {error}.", "Move the file away."
                ) from None

    def wait(self) -> None:
        """Wait until the findings are grouped.

        Raises:
            UserError: If they could not be.
        """
        if self._indexing is not None:
            self._indexing.join()
        if self._failed is not None:
            raise self._failed

    @property
    def _lock(self) -> threading.RLock:
        """The lock of the database, once findings are grouped; see `wait`."""
        self.wait()
        return self._inner

    def close(self) -> None:
        """Close the file."""
        if self._indexing is not None:
            self._indexing.join()
        with self._inner:
            self._base.close()

    def refresh(self) -> None:
        """Read the findings anew if their file is another one by now.

        Raises:
            UserError: If it holds no findings any more; those from before stay.
            OutageError: If what is read can't be kept.
        """
        if self._find_early() is not None:
            return  # they were read a moment ago
        with self._lock:
            try:
                if (seal := self._find_new_seal()) is not None:
                    fill_base(self._base, *group_findings(read_findings(self.findings)), seal)
            except sqlite3.OperationalError as error:
                raise self._explain_outage(error) from None
            except OSError as error:
                raise UserError(f"'{self.findings}' can't be read: {error.strerror}.", "Scan again.") from None

    def _explain_outage(self, error: sqlite3.OperationalError) -> OutageError:
        hint = "Is another review at work on it for long?" if "locked" in str(error) else FULL_DISK_HINT
        return OutageError(f"'{self.path}' can't be written: {error}.", hint)

    def _find_new_seal(self) -> str | None:
        """Return what tells the findings from others; `None` if they were read before and are the same."""
        place = self.findings / SCAN_FILE if self.findings.is_dir() else self.findings
        found = place.stat()
        seal = f"{REVIEW_VERSION} {found.st_size} {found.st_mtime_ns} {_hash_begin(place)}"
        known = self._base.execute("select value from about where name = 'findings'").fetchone()
        return None if known is not None and known["value"] == seal else seal

    def _fill_later(self, table: "pl.DataFrame", seal: str) -> None:
        """Group findings, and keep them by a connection of its own: others are asked meanwhile."""
        try:
            groups, rows = group_findings(table)
            self._grouped = list_early(groups, rows)
            self._known.set()
            with self._explain_errors(), closing(sqlite3.connect(self.path, isolation_level=None, timeout=5)) as base:
                fill_base(base, groups, rows, seal)
        except Exception as error:  # told to whoever asks
            self._failed = error
        finally:
            self._known.set()
            self._grouped = None

    def _find_early(self) -> GroupedFindings | None:
        """Return the groups that are on their way into the database; `None` if they are there."""
        if self._indexing is not None:
            self._known.wait()
        return self._grouped

    def _read_choices(self) -> dict[str, str]:
        rows = self._base.execute("select key, choice from current where target = 'group'").fetchall()
        return {row["key"]: row["choice"] for row in rows}

    def _roll_back(self) -> None:
        roll_back(self._base)

    @contextmanager
    def _hold(self, kind: Literal["deferred", "immediate"]) -> Generator[sqlite3.Connection]:
        """Do something in one transaction: other processes change nothing in between.

        Raises:
            OutageError: If the disk is full, or another process holds the file for long.
        """
        with self._lock:
            try:
                self._base.execute(f"begin {kind}")
                yield self._base
                self._base.execute("commit")
            except sqlite3.OperationalError as error:
                self._roll_back()
                raise self._explain_outage(error) from None
            except BaseException:
                self._roll_back()
                raise

    def count(self) -> dict[str, int]:
        """Return how many findings and groups there are, how many are decided, and the number of the last decision."""
        if (early := self._find_early()) is not None:
            return self._count_early(early)
        with self._lock:
            row = self._base.execute(
                "select count(*) as groups, coalesce(sum(many), 0) as findings, sum(choice = 'accepted') as accepted,"
                " sum(choice = 'dismissed') as dismissed from grouping left join current"
                " on current.target = 'group' and current.key = grouping.key"
            ).fetchone()
            titles = self._base.execute("select count(*) as many from current where target = 'title'").fetchone()
            last = self._find_last(None)
        counts = {name: int(row[name] or 0) for name in ("groups", "findings", "accepted", "dismissed")}
        return counts | {"titles": titles["many"], "last": last or 0}

    def _count_early(self, early: GroupedFindings) -> dict[str, int]:
        with self._inner:
            choices, last = self._read_choices(), self._find_last(None)
            titles = self._base.execute("select count(*) as many from current where target = 'title'").fetchone()
        told = [choices.get(row["key"]) for row in early.rows]
        counts = {"groups": len(early.rows), "findings": early.findings}
        counts |= {choice: told.count(choice) for choice in ("accepted", "dismissed")}
        return counts | {"titles": titles["many"], "last": last or 0}

    def _find_last(self, before: int | None) -> int | None:
        """Return the number of the last decision that stands, of those before another one."""
        query = "select max(number) as last from decision where not undone and (? is null or number < ?)"
        return self._base.execute(query, (before, before)).fetchone()["last"]

    def list_groups(self, offset: int, limit: int, search: str = "", state: GroupState = "all") -> GroupPage:
        """Return some groups, the largest and most suspicious flagged ones first.

        Args:
            offset: How many are passed over.
            limit: How many at most.
            search: Text that stands in a title of the group, whatever its case, or is its item's id.
            state: Which groups.
        """
        if not search and (early := self._find_early()) is not None:
            with self._inner:
                choices = self._read_choices()
            found = [row | {"choice": choices.get(row["key"])} for row in early.rows]
            found = [row for row in found if state == "all" or (row["choice"] or "open") == state]
            return GroupPage(len(found), found[offset : offset + limit])
        where, given = ["1"], list[Any]()
        if search:
            where.append("id in (select grouping from finding where instr(folded, ?) or item = ?)")
            given += [search.casefold(), search]
        if state != "all":
            where.append("choice is null" if state == "open" else "choice = ?")
            given += [] if state == "open" else [state]
        source = (
            "from grouping left join current on current.target = 'group' and current.key = grouping.key where "
            + " and ".join(where)
        )
        with self._hold("deferred") as base:
            total = base.execute(f"select count(*) as many {source}", given).fetchone()["many"]
            rows = base.execute(
                f"select id, grouping.key as key, fragment, reason, tier, many, best, choice {source}"
                " order by tier, many desc, best desc, id limit ? offset ?",
                [*given, limit, offset],
            ).fetchall()
            found = [
                dict(row) | {"mark": make_mark(row["key"]), "example": self._read_example(row["id"])} for row in rows
            ]
        return GroupPage(total, found)

    def _read_example(self, group: int) -> dict[str, Any]:
        found = self._base.execute("select title, start, stop from finding where grouping = ? limit 1", (group,))
        return dict(found.fetchone())

    def list_findings(self, group: int, offset: int, limit: int, mark: str = "") -> FindingPage:
        """Return some findings of a group, the most suspicious first.

        Args:
            group: Id of the group.
            offset: How many are passed over.
            limit: How many at most.
            mark: Mark of the group, which is checked; empty for whichever group has the id now.

        Raises:
            UserError: If the id is another group's by now, or nobody's.
        """
        with self._hold("deferred") as base:
            known = base.execute("select many, key from grouping where id = ?", (group,)).fetchone()
            if mark and (known is None or make_mark(known["key"]) != mark):
                raise explain_stale()
            rows = base.execute(
                "select finding.id, row, item, title, score, start, stop, tier, reason, choice from finding"
                " left join current on current.target = 'title' and current.key = finding.title"
                " where grouping = ? order by finding.id limit ? offset ?",
                (group, limit, offset),
            ).fetchall()
        return FindingPage(
            0 if known is None else known["many"], [dict(row) | {"mark": make_mark(row["title"])} for row in rows]
        )


def explain_stale() -> UserError:
    """Return what is said where what is shown is out of date."""
    return UserError(
        "The findings were read anew, so what is shown is out of date. Nothing was done.", "Reload the page."
    )


def _hash_begin(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.sha256(file.read(1 << 20)).hexdigest()
