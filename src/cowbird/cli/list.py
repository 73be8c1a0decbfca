"""`cowbird list`: what there is to put into a spec, and where it comes from."""

from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from cowbird.cli.options import AllowPluginsOption, JsonOption
from cowbird.cli.terminal import out_console, print_json, sanitize_line

LIST_EXAMPLES = (
    "cowbird list",
    "cowbird list attacks",
    "cowbird list triggers --json",
    "cowbird list attacks --allow-plugins",
)


class ListedKind(StrEnum):
    """What `cowbird list` can list."""

    attacks = "attacks"
    defenses = "defenses"
    victims = "victims"
    datasets = "datasets"
    scenarios = "scenarios"
    triggers = "triggers"
    metrics = "metrics"
    specs = "specs"


def list_(
    kind: Annotated[ListedKind | None, typer.Argument(help="What to list; without it, all kinds with counts.")] = None,
    allow_plugins: AllowPluginsOption = False,
    as_json: JsonOption = False,
) -> None:
    """List what a spec may name, a line each: name, meaning, and the package or file that it comes from."""
    from cowbird.experiments.reference.entries import KINDS, list_entries  # noqa: PLC0415

    if kind is None:
        counts = {f"{name}s": len(list_entries(name, allow_plugins)) for name in KINDS}
        if as_json:
            print_json(counts)
            return
        table = _make_table()
        for name, count in counts.items():
            table.add_row(Text(name, style="bold"), Text(str(count)), Text(f"cowbird list {name}", style="dim"))
        out_console.print(table)
        return
    entries = list_entries(kind.value.removesuffix("s"), allow_plugins)
    if as_json:
        print_json([entry._asdict() for entry in entries])
        return
    table = _make_table()
    for entry in entries:
        name = sanitize_line(entry.name)
        name.stylize("bold")
        origin = sanitize_line(entry.origin)
        origin.stylize("dim")
        table.add_row(name, sanitize_line(entry.summary), origin)
    out_console.print(table)


def _make_table() -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column()
    table.add_column(no_wrap=True)
    return table
