"""What a terminal shows of a run before it runs: cells, what of them is kept, and about how long the rest takes."""

from collections.abc import Sequence

from rich.table import Table

from cowbird.experiments.plan import PlannedCell
from cowbird.report.rates import NOT_MEASURED
from cowbird.report.terminal import sanitize_text


def make_plan_table(plan: Sequence[PlannedCell]) -> Table:
    """Return a line a cell."""
    table = Table(pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("number", justify="right", no_wrap=True)
    table.add_column("cell", overflow="fold", min_width=10)
    for name in ("state", "measured", "models kept", "time left, about"):
        table.add_column(name, justify="right", no_wrap=True)
    for cell in plan:
        state = "done" if cell.done else "partly" if cell.measured or cell.models else "waiting"
        left = NOT_MEASURED if cell.seconds is None else format_seconds(cell.seconds)
        measured = f"{cell.measured} of {cell.places}"
        table.add_row(str(cell.number), sanitize_text(cell.name), state, measured, str(cell.models), left)
    return table


def describe_plan(plan: Sequence[PlannedCell]) -> str:
    """Return the plan in a sentence or two."""
    left = [cell for cell in plan if not cell.done]
    words = f"{len(left)} of {len(plan)} cells are left. Nothing was run or written."
    known = [cell.seconds for cell in left if cell.seconds is not None]
    if left and len(known) == len(left):
        return f"{words} One after another they take about {format_seconds(sum(known))}, as cells that are done took."
    return f"{words} No cell of some victims is done, so nothing tells how long they take." if left else words


def format_seconds(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
