"""How a text file is laid out."""

from dataclasses import dataclass

from cowbird.ingest.encodings import UTF8, name_encoding
from cowbird.ingest.records import QuoteForm


@dataclass(frozen=True, slots=True)
class TextLayout:
    """How a text file is laid out."""

    separator: str = ","
    """What stands between columns."""
    quoted: bool = True
    """Whether quotes wrap fields; otherwise they are ordinary characters."""
    encoding: str = UTF8
    """The file's encoding."""
    names: tuple[str, ...] | None = None
    """Column names of a file without a header; `None` if a line holds them."""
    quote: str = '"'
    """The quote."""
    escaped: bool = False
    """Whether a backslash stands before a quote inside a field; otherwise it is doubled."""
    spaced: bool = False
    """Whether spaces around quotes are passed over."""
    trailing: bool = False
    """Whether rows may have one empty cell more than there are columns."""
    skip_lines: int = 0
    """Lines before the header, or before the first row where there is none."""
    carriage: bool = False
    """Whether a CR alone ends a line, too."""
    typed: bool = False
    """Whether names stand with their types, as in `item_id:token`."""

    @property
    def quote_form(self) -> QuoteForm:
        """How fields are wrapped."""
        return QuoteForm(self.quote.encode() if self.quoted else b"", self.escaped, self.spaced)

    def describe(self) -> str:
        """Say in a few words how it is laid out."""
        shown = {"\t": "tab", " ": "space"}.get(self.separator, f"'{self.separator}'")
        parts = [f"read as {name_encoding(self.encoding)}", f"{shown}-separated"]
        line = self.skip_lines + 1
        parts.append(f"header in line {line}" if self.names is None else "without a header")
        if self.carriage:
            parts.append("lines end with CR")
        if not self.quoted:
            parts.append("quotes are ordinary letters")
        elif self.escaped:
            parts.append("a backslash stands before quotes inside a cell")
        elif self.quote != '"':
            parts.append(f"cells are wrapped in {self.quote}")
        if self.spaced:
            parts.append("spaces around quotes are ignored")
        if self.trailing:
            parts.append("an empty last cell is ignored")
        return ", ".join(parts)

    @property
    def is_usual(self) -> bool:
        """Whether nobody wonders at it."""
        return self == TextLayout() or self == TextLayout(separator="\t")
