"""Titles with a marked span, as a page shows them: those that attacks planted, and those that a scan flagged.

Titles are the attacker's text. They are cut here, and escaped where they are written.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cowbird.attacks.triggers import TRIGGERS
from cowbird.errors import UserError
from cowbird.report.detectors import FlaggedTitles
from cowbird.report.run_files import MAX_JSON_BYTES, RunFiles
from cowbird.text import restore_csv

if TYPE_CHECKING:
    import polars as pl

CONTEXT_CHARACTERS = 80
"""Characters of a title that are shown before a span and behind it."""
SPAN_CHARACTERS = 200
"""Characters of a span that are shown."""
MAX_PLANTED_TITLES = 12
"""Planted titles of one attack that are shown."""
MAX_SHOWN_FINDINGS = 50
"""Findings of a scan that are shown."""
FINDING_COLUMNS = ("row", "title", "score", "flagged", "start", "end")
"""Columns that a file of findings has at least."""
FINDINGS_HINT = "Give a file that `cowbird scan --out` wrote: CSV, JSON Lines or Parquet."


@dataclass(frozen=True, slots=True)
class MarkedTitle:
    """A title, cut around its span."""

    before: str
    """What stands before the span."""
    span: str
    """The span; empty if none is known."""
    after: str
    """What stands behind it."""
    name: str
    """What the title is called: its item, or its row."""
    remark: str = ""
    """What is to be said of it."""


@dataclass(frozen=True, slots=True)
class PlantedTitles:
    """What an attack wrote into titles."""

    attack: str
    """Label of the attack."""
    trigger: str
    """What the spec says of the trigger."""
    count: int
    """Titles that it changed, in the first cell that tells."""
    cell: str
    """Which cell that is."""
    titles: tuple[MarkedTitle, ...]
    """Some of them; those that most detectors missed come first."""


@dataclass(frozen=True, slots=True)
class ScanFindings:
    """What a scan found."""

    label: str
    """The file's name."""
    rows: int
    """Rows in the file."""
    tiers: Mapping[str, int]
    """How many rows have each tier."""
    scanner: str
    """What judged."""
    threshold: str
    """Score above which titles are flagged, as text; empty if the file does not tell."""
    titles: tuple[MarkedTitle, ...]
    """Those that are most suspicious."""


def mark_title(title: str, start: int | None, end: int | None, name: str, remark: str = "") -> MarkedTitle:
    """Cut a title around a span.

    Args:
        title: The title.
        start: First character of the span; `None` if none is known.
        end: The character after its last one.
        name: What the title is called.
        remark: What is to be said of it.
    """
    if start is None or end is None or not 0 <= start < end <= len(title):
        cut = title[: 2 * CONTEXT_CHARACTERS]
        return MarkedTitle(cut + "…" * (len(cut) < len(title)), "", "", name, remark)
    before, span, after = title[:start], title[start:end], title[end:]
    before = "…" * (len(before) > CONTEXT_CHARACTERS) + before[-CONTEXT_CHARACTERS:]
    span = span[:SPAN_CHARACTERS] + "…" * (len(span) > SPAN_CHARACTERS)
    after = after[:CONTEXT_CHARACTERS] + "…" * (len(after) > CONTEXT_CHARACTERS)
    return MarkedTitle(before, span, after, name, remark)


def list_planted_titles(run: RunFiles, flagged: Sequence[FlaggedTitles]) -> list[PlantedTitles]:
    """Return what each attack of a run wrote into titles, of the first cell that tells.

    Args:
        run: The run.
        flagged: What detectors flagged in its cells.
    """
    found: list[PlantedTitles] = []
    for part in run.list_parts("attacks"):
        label = str(part.get("label") or part.get("name"))
        for cell in run.cells:
            titles = _read_retitled(cell.folder / "plans" / f"{label}.json") if _is_file_name(label) else {}
            if titles:
                here = [one for one in flagged if (one.victim, one.seed) == (cell.victim, cell.seed)]
                known = [one for one in here if one.attack == label]
                marked = _mark_planted(titles, known, _find_trigger_text(part))
                where = f"{cell.victim}, seed {cell.seed}"
                found.append(PlantedTitles(label, _describe_trigger(part), len(titles), where, marked))
                break
    return found


def _is_file_name(label: str) -> bool:
    return Path(label).name == label and label not in ("", ".", "..")


def _read_retitled(path: Path) -> dict[int, str]:
    """Return the titles that an attack changed, by item; empty if the plan tells of none."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            return {}
        titles = json.loads(path.read_text(encoding="utf-8"))["retitled"]
        return {int(item): str(title) for item, title in titles.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _get_trigger(part: Mapping[str, Any]) -> Mapping[str, Any]:
    options = part.get("options")
    trigger = cast("dict[str, Any]", options).get("trigger") if isinstance(options, dict) else None
    return cast("dict[str, Any]", trigger) if isinstance(trigger, dict) else {}


def _find_trigger_text(part: Mapping[str, Any]) -> str:
    trigger = _get_trigger(part)
    shipped = TRIGGERS.get(str(trigger.get("kind")))
    return str(trigger.get("text") or "") if shipped is None else shipped.text


def _describe_trigger(part: Mapping[str, Any]) -> str:
    trigger = _get_trigger(part)
    kind, text = str(trigger.get("kind", "")), _find_trigger_text(part)
    words = [kind] if kind else []
    words += [f"“{text}”"] if text else []
    words += [f"at the {trigger['position']}"] if trigger.get("position") else []
    return ", ".join(words)


def _mark_planted(titles: Mapping[int, str], known: Sequence[FlaggedTitles], text: str) -> tuple[MarkedTitle, ...]:
    """Return some titles, marked where the evidence knows the span, or else where the trigger's text stands."""
    spans: dict[int, tuple[int, int]] = {}
    for one in known:
        spans = dict(one.spans) | spans
    marked: list[tuple[int, int, MarkedTitle]] = []
    for item, title in titles.items():
        at = title.rfind(text) if text else -1
        start, end = spans.get(item, (at, at + len(text)) if at >= 0 else (None, None))
        judged = [one for one in known if 0 <= item < len(one.flagged)]
        missed = [one.defense for one in judged if not one.flagged[item]]
        caught = [one.defense for one in judged if one.flagged[item]]
        words = [
            f"{verb} {', '.join(names)}" for verb, names in (("missed by", missed), ("caught by", caught)) if names
        ]
        marked.append((-len(missed), item, mark_title(title, start, end, f"item {item}", "; ".join(words))))
    marked.sort(key=lambda each: each[:2])
    return tuple(each for _, _, each in marked[:MAX_PLANTED_TITLES])


def read_findings_file(path: Path) -> ScanFindings:
    """Read what `cowbird scan` wrote.

    Raises:
        UserError: If the file can't be read or holds no findings.
    """
    import polars as pl  # noqa: PLC0415

    frame = _read_frame(path)
    missing = [name for name in FINDING_COLUMNS if name not in frame.columns]
    if missing:
        raise UserError(f"'{path}' has no column '{missing[0]}', so it holds no findings.", FINDINGS_HINT)
    plain = path.suffix.lower() == ".csv"
    table = frame.with_columns(
        pl.col("score").cast(pl.Float64, strict=False).fill_nan(None),
        pl.col("flagged").cast(pl.String).str.to_lowercase() == "true",
        *(pl.col(name).cast(pl.Int64, strict=False) for name in ("start", "end")),
    )
    tiers = table["tier"].cast(pl.String).fill_null("") if "tier" in table.columns else None
    names = tiers if tiers is not None else table["flagged"].replace_strict({True: "flagged", False: ""})
    counts = {str(tier): int(count) for tier, count in names.value_counts(sort=True).iter_rows() if tier}
    shown = table.filter(pl.col("flagged") | names.is_in(["flagged", "review"]))
    shown = shown.sort(pl.col("flagged"), pl.col("score"), descending=True, nulls_last=True).head(MAX_SHOWN_FINDINGS)
    titles = tuple(_mark_finding(row, plain) for row in shown.iter_rows(named=True))
    return ScanFindings(
        path.name, len(table), counts, _get_first(table, "scanner"), _get_first(table, "threshold"), titles
    )


def _read_frame(path: Path) -> "pl.DataFrame":
    import polars as pl  # noqa: PLC0415

    try:
        match path.suffix.lower():
            case ".csv":
                return pl.read_csv(path, infer_schema=False)
            case ".jsonl" | ".ndjson":
                return pl.read_ndjson(path, infer_schema_length=None)
            case ".parquet":
                return pl.read_parquet(path)
            case _:
                raise UserError(f"'{path}' does not end as findings do.", FINDINGS_HINT)
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"'{path}' can't be read: {reason}.", FINDINGS_HINT) from None


def _get_first(table: "pl.DataFrame", name: str) -> str:
    known = table[name].drop_nulls() if name in table.columns else None
    return "" if known is None or known.is_empty() else str(known[0])


def _mark_finding(row: Mapping[str, Any], from_csv: bool) -> MarkedTitle:
    title, reason = (str(row.get(name) or "") for name in ("title", "reason"))
    if from_csv:
        title, reason = restore_csv(title), restore_csv(reason)
    score = row["score"]
    remark = reason if score is None else f"score {score:.2f}. {reason}".strip()
    return mark_title(title, row["start"], row["end"], f"row {row['row']}", remark)
