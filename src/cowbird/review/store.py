"""Decisions about findings: kept, undone, and exported as what the next scan must not flag.

A decision is about a group or about one title. It is kept by what it is about, not by the row, so it holds when the
catalogue is scanned again. Every decision is a row that is never changed but to be undone.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from cowbird.errors import UserError
from cowbird.files import write_text
from cowbird.review.grouped_store import Choice, GroupedStore, Target, explain_stale
from cowbird.review.grouping import make_mark

ALLOW_SUFFIX = ".allow.txt"
"""What is added to it for the texts that must not be flagged."""


class UndoneDecision(NamedTuple):
    """A decision that was taken back."""

    target: Target
    """What it was about."""
    choice: Choice
    """What it was."""
    before: int | None
    """Number of the decision before it that stands; `None` if there is none."""


class ExportedTexts(NamedTuple):
    """What an export wrote."""

    path: Path
    """The file."""
    texts: int
    """Texts in it."""
    left_out: int
    """Texts that can't stand in a line."""


class ReviewStore(GroupedStore):
    """The findings of a file and the decisions about them; arguments as in `GroupedStore`."""

    def decide(self, target: Target, number: int, choice: Choice, mark: str) -> int:
        """Keep a decision about a group or a finding's title.

        Args:
            target: What it is about.
            number: Id of the group or the finding.
            choice: The decision.
            mark: Mark of the group or the finding, as it was listed: another `ReviewStore` may have read findings
                anew since then, and given their ids to others.

        Returns:
            The number of the decision.

        Raises:
            UserError: If the id is another one's by now, or nobody's.
            OutageError: If it can't be kept.
        """
        query = (
            "select key from grouping where id = ?" if target == "group" else "select title from finding where id = ?"
        )
        with self._hold("immediate") as base:
            found = base.execute(query, (number,)).fetchone()
            if found is None or make_mark(found[0]) != mark:
                raise explain_stale()
            at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
            kept = base.execute(
                "insert into decision (target, key, choice, at) values (?, ?, ?, ?)", (target, found[0], choice, at)
            )
            base.execute("insert or replace into current values (?, ?, ?)", (target, found[0], choice))
        return int(kept.lastrowid or 0)

    def undo(self, number: int | None = None) -> UndoneDecision | None:
        """Take a decision back.

        Args:
            number: Its number; `None` for the last one, whoever made it.

        Returns:
            What it was; `None` if there is none that stands.

        Raises:
            UserError: If another decision was made since then about the same.
            OutageError: If that can't be kept.
        """
        with self._hold("immediate") as base:
            number = self._find_last(None) if number is None else number
            last = base.execute("select * from decision where not undone and number = ?", (number,)).fetchone()
            if last is None:
                return None
            about = last["target"], last["key"]
            later = "select 1 from decision where target = ? and key = ? and not undone and number > ?"
            if base.execute(later, (*about, number)).fetchone() is not None:
                raise UserError(
                    "Somebody has decided about the same since then. Nothing was undone.", "Reload the page to see it."
                )
            base.execute("update decision set undone = 1 where number = ?", (last["number"],))
            before = base.execute(
                "select choice from decision where target = ? and key = ? and not undone order by number desc limit 1",
                about,
            ).fetchone()
            if before is None:
                base.execute("delete from current where target = ? and key = ?", about)
            else:
                base.execute("insert or replace into current values (?, ?, ?)", (*about, before["choice"]))
            return UndoneDecision(last["target"], last["choice"], self._find_last(number))

    def export_allowed(self, out: Path | None = None) -> ExportedTexts:
        """Write the texts that were dismissed, one a line, as `cowbird scan --allow` reads them.

        Of a group it is every text that was marked, as it stands in the titles; of a group without marks, and of a
        single title, the whole title. A title that was accepted is left out, whatever was said of its group.

        Args:
            out: The file; `None` for the one beside the findings.

        Raises:
            UserError: If nothing is dismissed; no file is written then, for a scan takes no empty one.
            OutageError: If it can't be written.
        """
        path = self.findings.with_name(self.findings.name + ALLOW_SUFFIX) if out is None else out
        with self._lock:
            rows = self._base.execute(
                "select title, start, stop from finding join grouping on grouping.id = finding.grouping"
                " join current on current.target = 'group' and current.key = grouping.key and choice = 'dismissed'"
                " where not exists (select 1 from current as own where own.target = 'title' and own.key = title"
                " and own.choice = 'accepted')"
            ).fetchall()
            titles = self._base.execute("select key from current where target = 'title' and choice = 'dismissed'")
            texts = [_choose_allowed(row["title"], row["start"], row["stop"]) for row in rows]
            texts += [row["key"] for row in titles.fetchall()]
        different = dict.fromkeys(text.strip() for text in texts if text.strip())
        lines = [text for text in different if "\n" not in text]
        if not lines:
            raise UserError(
                f"Nothing is dismissed yet, so '{path.name}' is not written.",
                f"Decide on the page first: cowbird review {self.findings.name}.",
            )
        write_text(path, "".join(f"{line}\n" for line in lines))
        return ExportedTexts(path, len(lines), len(different) - len(lines))


def _choose_allowed(title: str, start: int | None, stop: int | None) -> str:
    span = "" if start is None or stop is None else title[start:stop]
    return span if span.strip() else title
