"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

CatalogArgument = Annotated[Path, typer.Argument(help="CSV, TSV, JSON Lines (each perhaps .gz) or Parquet.")]
TextColumnOption = Annotated[str, typer.Option("--text-column", help="The column of titles.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
OutOption = Annotated[Path, typer.Option("--out", help="Folder of the run; new or empty unless --resume is given.")]
JobsOption = Annotated[
    int,
    typer.Option(
        min=1, help="Cells (victim and seed) run at once: in processes on a CPU, in threads that share the GPUs."
    ),
]
