"""Findings in groups: those that were flagged for the same text and the same kind of reason, and how they are kept."""

import hashlib
import re
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cowbird.text import normalize_span

if TYPE_CHECKING:
    import polars as pl

_NUMBER = re.compile(r"[\d.,]+")
REVIEW_SCHEMA = """
create table if not exists about (name text primary key, value text);
create table if not exists decision (
    number integer primary key autoincrement, target text not null, key text not null, choice text not null,
    at text not null, undone integer not null default 0
);
create table if not exists current (target text, key text, choice text, primary key (target, key)) without rowid;
create table if not exists grouping (
    id integer primary key, key text not null, fragment text not null, reason text not null, tier text not null,
    many integer not null, best real not null
);
create table if not exists finding (
    id integer primary key, grouping integer not null, row integer, item text, title text not null, folded text,
    score real, start integer, stop integer, tier text, reason text
);
"""
_INDEX = "create index if not exists by_group on finding (grouping, id)"


class GroupedFindings(NamedTuple):
    """Groups that are not in the database yet."""

    rows: list[dict[str, Any]]
    """What `list_groups` tells of each but the choice, in its order."""
    findings: int
    """How many findings they have."""


def make_mark(key: str) -> str:
    """Return a short hash of what a decision is kept by."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def read_findings(findings: Path) -> "pl.DataFrame":
    """Return the findings; what reads them is loaded when it is needed."""
    from cowbird.scanning.findings_file import read_reviewed_table  # noqa: PLC0415

    return read_reviewed_table(findings)


def fill_base(base: sqlite3.Connection, groups: list[tuple[Any, ...]], rows: list[tuple[Any, ...]], seal: str) -> None:
    """Keep findings, their groups and what tells them from others, in the place of those before."""
    base.execute("pragma synchronous = normal")  # what a power cut takes is read again
    base.execute("begin immediate")
    try:
        base.execute("drop index if exists by_group")  # made at the end, it takes less time
        base.execute("delete from finding")
        base.execute("delete from grouping")
        base.executemany("insert into grouping values (?, ?, ?, ?, ?, ?, ?)", groups)
        base.executemany("insert into finding values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        base.execute(_INDEX)
        base.execute("insert or replace into about values ('findings', ?)", (seal,))
        base.execute("commit")
    except BaseException:
        roll_back(base)
        raise
    finally:
        base.execute("pragma synchronous = full")


def roll_back(base: sqlite3.Connection) -> None:
    """End a transaction that failed."""
    with suppress(sqlite3.OperationalError):  # where the disk is full, SQLite has done so
        base.execute("rollback")


def list_early(groups: list[tuple[Any, ...]], rows: list[tuple[Any, ...]]) -> GroupedFindings:
    """Return groups as `ReviewStore.list_groups` tells them, from what is kept of them."""
    examples = dict[int, dict[str, Any]]()
    for _, group, _, _, title, _, _, start, stop, _, _ in rows:
        if group not in examples:
            examples[group] = {"title": title, "start": start, "stop": stop}
    names = ("id", "key", "fragment", "reason", "tier", "many", "best")
    told = [dict(zip(names, group, strict=True)) for group in groups]
    told.sort(key=lambda row: (row["tier"], -row["many"], -row["best"], row["id"]))
    return GroupedFindings(
        [row | {"mark": make_mark(row["key"]), "example": examples[row["id"]]} for row in told], len(rows)
    )


def group_findings(findings: "pl.DataFrame") -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Return the groups of findings, and the findings, the most suspicious of each group first."""
    import polars as pl  # noqa: PLC0415

    table = findings.sort(pl.col("score").fill_null(0.0), descending=True, maintain_order=True)
    rows, ids, titles, scores, starts, ends, tiers, reasons = (column.to_list() for column in table)
    keys, groups, numbers = dict[tuple[str, str], int](), list[list[Any]](), list[int]()
    known = dict[str, int]()
    for title, score, start, end, tier, reason in zip(titles, scores, starts, ends, tiers, reasons, strict=True):
        marked = (title if start is None else title[start:end], reason)
        number = keys.get(marked)
        if number is None:
            fragment = normalize_span(marked[0])
            key = f"{fragment}\x1f{_NUMBER.sub('#', reason)}"
            number = keys[marked] = known.setdefault(key, len(groups))
            if number == len(groups):
                groups.append([number, key, fragment, reason, tier, 0, score or 0.0])
        group = groups[number]
        group[5] += 1
        if tier == "flagged":
            group[4] = tier
        numbers.append(number)
    folded = map(str.casefold, titles)
    order = range(len(titles))
    made = zip(order, numbers, rows, ids, titles, folded, scores, starts, ends, tiers, reasons, strict=True)
    return [tuple(group) for group in groups], list(made)
