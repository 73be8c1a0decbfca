"""How visible triggers are: each planted in a catalogue's titles, and read by a language model.

One row a trigger: medians over the titles it changes, with bootstrap intervals over titles. The title is measured, not
the attack: which and how many titles a seller poisons does not enter, and nothing is trained. This table is ours; the
BadRec paper (arXiv 2504.11182) has none.

Perplexity is a mean over tokens, and the first tokens of a short title are the most surprising ones, so that a trigger
behind them often lowers it. The bits of surprise that a trigger adds are a sum over tokens, and show it.
"""

import csv
import difflib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from cowbird import plugins
from cowbird.attacks.triggers import TRIGGERS, Trigger, TriggerPosition, plant
from cowbird.data.types import Items
from cowbird.errors import UserError
from cowbird.experiments.field_errors import explain_errors
from cowbird.metrics.intervals import Interval
from cowbird.metrics.stealth import control_share, median_interval
from cowbird.rng import stream
from cowbird.scanning.scan import load_table_titles
from cowbird.text import escape_csv, escape_terminal, quote_for_prompt
from cowbird.victims.fit_context import ProgressCallback, report_nothing
from cowbird.victims.language.llm import Llm, load_llm
from cowbird.victims.language.perplexity import compare_titles, read_titles

STEALTH_MEASURES = ("perplexity_ratio", "added_bits", "edit_distance", "control_share", "similarity")
"""What is measured; each has `_low` and `_high` beside it, the ends of a 95 % interval."""
STEALTH_COLUMNS = (
    *("llm", "layers", "seed", "trigger", "level", "family", "position", "titles"),
    *(f"{measure}{end}" for measure in STEALTH_MEASURES for end in ("", "_low", "_high")),
)
"""Columns of the table."""


def measure_stealth(
    llm: Llm,
    items: Items,
    triggers: Sequence[Trigger],
    seed: int,
    device: torch.device,
    titles: int | None = None,
    report: ProgressCallback = report_nothing,
) -> list[dict[str, Any]]:
    """Measure how visible triggers are in the titles of a catalogue.

    Args:
        llm: The language model that reads titles; float32 on a CPU, bfloat16 on a GPU.
        items: The catalogue; items without a title are left out.
        triggers: What is planted, each alone; in titles, not in categories.
        seed: Draws the titles, places of triggers and resamples.
        device: Where the model runs.
        titles: Titles drawn, if there are more; `None` takes all.
        report: Told of steps (one a trigger, and one before them) done and in all.

    Returns:
        A row a trigger with the keys `STEALTH_COLUMNS`. `titles` counts those that the trigger changes (a style does
        not suit
        every title), and the measures are over them: medians of the ratio of perplexities, of the bits of surprise
        added, of the edit distance in characters and of the cosine of embeddings, and the share of titles that gained a
        control or format character. What was not measured is `None`.

    Raises:
        UserError: If there are no titles or triggers, a trigger is for categories, or the model does not suit.
    """
    chosen = _draw_titles(items, titles, seed)
    if not triggers:
        raise UserError("There are no triggers to measure.", "Name at least one.")
    if any(trigger.field != "title" for trigger in triggers):
        raise UserError("Only triggers in titles can be measured.", "Leave out the field 'category'.")
    loaded = load_llm(llm, device, torch.float32 if device.type == "cpu" else torch.bfloat16)
    clean = read_titles(loaded, chosen)
    report(1, len(triggers) + 1, "titles as they are")
    rows: list[dict[str, Any]] = []
    for trigger in triggers:
        name = trigger.text or trigger.kind
        rng = stream(seed, "stealth", trigger.kind, trigger.text, trigger.position)
        poisoned = [plant(title, trigger, rng).title for title in chosen]
        both = compare_titles(chosen, poisoned, clean, read_titles(loaded, poisoned))
        changed = [title for title in both if title.edits]
        bits = [title.added_bits for title in changed if title.added_bits is not None]
        ratios = [title.perplexity_ratio for title in changed if title.perplexity_ratio is not None]
        cosines = [title.similarity for title in changed if title.similarity is not None]
        found = (
            median_interval(ratios, rng),
            median_interval(bits, rng),
            median_interval([title.edits for title in changed], rng),
            control_share([title.clean for title in changed], [title.poisoned for title in changed]),
            median_interval(cosines, rng),
        )
        shipped = TRIGGERS.get(trigger.kind)
        kind = ("custom", "custom") if shipped is None else (shipped.level, shipped.family)
        head = (llm.name, llm.layers, seed, name, *kind, trigger.position, len(changed))
        cells = [end for interval in found for end in _list_ends(interval)]
        rows.append(dict(zip(STEALTH_COLUMNS, (*head, *cells), strict=True)))
        report(len(rows) + 1, len(triggers) + 1, name)
    return rows


def find_shipped_triggers(kinds: Sequence[str]) -> list[Trigger]:
    """Return shipped triggers by name, each once, at the end of titles.

    Raises:
        UserError: If there is none of that name; the hint names the ones spelled alike.
    """
    unknown = [kind for kind in kinds if kind not in TRIGGERS]
    if unknown:
        close = difflib.get_close_matches(unknown[0], TRIGGERS, 3) or list(TRIGGERS)[:10]
        raise UserError(f"There is no shipped trigger '{unknown[0]}'.", f"Such as {', '.join(close)}.")
    return [Trigger(kind=kind) for kind in dict.fromkeys(kinds)]


def make_text_triggers(texts: Sequence[str], position: TriggerPosition) -> list[Trigger]:
    """Return texts as triggers, each once.

    Raises:
        UserError: If a text can't be one.
    """
    found: list[Trigger] = []
    for text in dict.fromkeys(texts):
        try:
            found.append(Trigger(kind="custom", text=text, position=position))
        except ValidationError as error:
            raise UserError(f"'{text}' can't be a trigger: {explain_errors(error)}", "Give another text.") from None
    return found


def load_title_file(path: Path, column: str) -> Items:
    """Return the titles of a CSV, TSV, JSON Lines or Parquet file as a catalogue without categories.

    Raises:
        UserError: If the file can't be read, has no such column, or has rows that can't be read.
    """
    titles, unread = load_table_titles(path, column)
    if unread:
        raise UserError(f"Rows of '{path}' can't be read: {unread[0]}.", "Mend the file.")
    kept = tuple(title for title in titles if title)
    ids = tuple(map(str, range(len(kept))))
    return Items(ids, kept, np.zeros(len(kept) + 1, dtype=np.int64), np.empty(0, dtype=np.int32), ())


def load_catalog(dataset: str) -> Items:
    """Return the items of a dataset that needs no options, by name.

    Raises:
        UserError: If there is no such dataset, it needs options, or it can't be read.
    """
    source = plugins.find_plugin("dataset", dataset)
    try:
        spec = source()
    except ValidationError as error:
        raise UserError(
            f"The dataset '{dataset}' needs options: {explain_errors(error)}",
            "Name another, or give a file of titles with --titles.",
        ) from None
    return spec.load().items


def _draw_titles(items: Items, titles: int | None, seed: int) -> list[str]:
    known = [title for title in items.titles if quote_for_prompt(title)]
    if not known:
        raise UserError("The catalogue has no titles.", "Use a source with titles.")
    if titles is None or titles >= len(known):
        return known
    drawn: list[int] = np.sort(stream(seed, "titles").choice(len(known), titles, replace=False)).tolist()
    return [known[place] for place in drawn]


def _list_ends(found: Interval) -> tuple[float | None, float | None, float | None]:
    return found.value, found.low, found.high


def table_to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV; no text in it is a formula to a spreadsheet or steers a terminal."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(STEALTH_COLUMNS)
    for row in rows:
        cells = (row[name] for name in STEALTH_COLUMNS)
        writer.writerow([escape_csv(escape_terminal(cell, None)) if isinstance(cell, str) else cell for cell in cells])
    return text.getvalue()
