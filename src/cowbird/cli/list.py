"""`cowbird list`: the plug-ins that ship."""

from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from cowbird import plugins
from cowbird.cli.terminal import MAX_LINE, out_console
from cowbird.report.terminal import sanitize_text


class PluginGroup(StrEnum):
    """What `cowbird list` can list."""

    attacks = "attacks"
    defenses = "defenses"
    victims = "victims"
    datasets = "datasets"


def list_(kind: Annotated[PluginGroup, typer.Argument(help="What to list.")]) -> None:
    """List attacks, defenses, victims or datasets, a line each."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column()
    singular = kind.value.removesuffix("s")
    for name in plugins.list_plugins(singular):
        summary = plugins.summarize_plugin(plugins.find_plugin(singular, name))
        table.add_row(Text("", style="bold") + sanitize_text(name), sanitize_text(summary, MAX_LINE))
    out_console.print(table)
