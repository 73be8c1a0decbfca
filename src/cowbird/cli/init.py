"""`cowbird init`: a new spec file to start from."""

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from cowbird.cli.terminal import out_console, sanitize_line

INIT_EXAMPLES = ("cowbird init tabular", "cowbird init movielens_100k --out experiment.toml")


class SpecTemplate(StrEnum):
    """Data that `cowbird init` writes a spec for."""

    tabular = "tabular"
    atomic = "atomic"
    movielens_100k = "movielens_100k"


def init(
    source: Annotated[
        SpecTemplate,
        typer.Argument(help="The data: tabular is CSV, TSV or Parquet; atomic is RecBole's format.", show_choices=True),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.toml", help="The new file.")] = Path("spec.toml"),
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
) -> None:
    """Write a commented spec to start from. What you have to change in it is marked CHANGE."""
    from cowbird.experiments.reference.templates import write_template  # noqa: PLC0415

    write_template(source, out, force)
    again = shlex.join(["cowbird", "validate", str(out)])
    out_console.print(Text("Written: ") + sanitize_line(str(out)))
    out_console.print(Text("Change what is marked CHANGE, then check it: ") + sanitize_line(again), soft_wrap=True)
