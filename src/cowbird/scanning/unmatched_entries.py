"""Entries of an allow list that match nothing in a catalogue: misspelled there, or gone from it."""

from collections.abc import Iterable, Iterator

from cowbird.notices import NoticeRank, collect_notices, note
from cowbird.scanning.allow_list import AllowList
from cowbird.scanning.reading import Catalog, CatalogRow
from cowbird.text import replace_controls

MAX_ENTRIES_SOUGHT = 1000
"""Entries that are looked for; of a longer list the first ones. A thousand that are nowhere cost 25 µs a title."""
MAX_ENTRIES_NAMED, MAX_NAME_LENGTH = 3, 40
"""How many of those that match nothing are named, and how many characters of each are shown."""
CHARACTERS_AT_ONCE = 1 << 18
"""Characters of titles that are searched together, which takes a fraction of the time."""
_BETWEEN = "\0"


class UnmatchedEntries:
    """The entries that no row has matched so far, as rows pass by.

    A text matches where it stands in a title, suspicious or not; an id, where a row has it, and its text if it has one.

    Args:
        allow: The list.
    """

    def __init__(self, allow: AllowList) -> None:
        entries = allow.list_entries()
        self.cut = len(entries) > MAX_ENTRIES_SOUGHT
        self._texts = dict.fromkeys(text for id_, text in entries[:MAX_ENTRIES_SOUGHT] if id_ is None)
        self._rows: dict[str, list[str]] = {}
        for id_, text in entries[:MAX_ENTRIES_SOUGHT]:
            if id_ is not None:
                self._rows.setdefault(id_, []).append(text)

    def __bool__(self) -> bool:
        return bool(self._texts or self._rows)

    def watch(self, rows: Iterable[CatalogRow]) -> Iterable[CatalogRow]:
        """Return rows; as they pass by, what they match is struck off."""
        return self._strike(rows) if self else rows

    def _strike(self, rows: Iterable[CatalogRow]) -> Iterator[CatalogRow]:
        held, size = list[str](), 0
        for row in rows:
            if self and not row.problem:
                held.append(row.title)
                size += len(row.title)
                if row.id is not None and row.id in self._rows:
                    self._strike_row(row.id, row.title)
                if size > CHARACTERS_AT_ONCE:
                    self._strike_texts(held)
                    held, size = [], 0
            yield row
        self._strike_texts(held)

    def read(self, table: Catalog) -> None:
        """Read a catalogue whose rows pass by elsewhere, as far as needed; how it is read is told there."""
        with collect_notices():
            for _ in self.watch(table.read_rows()):
                if not self:
                    return

    def tell(self) -> None:
        """Note how many there are, and the first of them."""
        left = [repr(_cut_name(text)) for text in self._texts]
        for id_, texts in self._rows.items():
            left += [f"id {_cut_name(id_)!r}" + (f" with {_cut_name(text)!r}" if text else "") for text in texts]
        if not left:
            return
        named = ", ".join(left[:MAX_ENTRIES_NAMED]) + (", …" if len(left) > MAX_ENTRIES_NAMED else "")
        which = f"Of the first {MAX_ENTRIES_SOUGHT:,} entries" if self.cut else "Of the entries"
        count = f"{len(left):,} match" if len(left) > 1 else "1 matches"
        text = f"{which} of --allow, {count} nothing in the catalogue: {named}. Are they spelled as there?"
        note(NoticeRank.CHANGE, text)

    def _strike_row(self, id_: str, title: str) -> None:
        shown = replace_controls(title)
        left = [text for text in self._rows[id_] if text not in title and text not in shown]
        if left:
            self._rows[id_] = left
        else:
            del self._rows[id_]

    def _strike_texts(self, titles: list[str]) -> None:
        for title in titles:  # whole titles in no time
            self._texts.pop(title.strip(), None)
        if not self._texts:
            return
        together = _BETWEEN.join(titles)
        shown = replace_controls(together) if any("\N{REPLACEMENT CHARACTER}" in text for text in self._texts) else ""
        self._texts = {text: None for text in self._texts if text not in together and text not in shown}


def _cut_name(text: str) -> str:
    return text if len(text) <= MAX_NAME_LENGTH else f"{text[: MAX_NAME_LENGTH - 1]}…"
