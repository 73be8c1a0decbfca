"""`cowbird calibrate`: the ready scanner beside clean titles of one's own, in a file, for later uploads."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group

from cowbird.cli.options import (
    CatalogArgument,
    DeviceOption,
    JsonOption,
    QuietOption,
    TaggerOption,
    TextColumnOption,
    choose_tagger,
)
from cowbird.cli.progress import make_progress, show_loading
from cowbird.cli.reading import take_read_options
from cowbird.cli.terminal import exit_resumable, name_command_again, out_console, print_json
from cowbird.errors import ExitCode, UserError
from cowbird.outputs import check_outputs, check_writable

if TYPE_CHECKING:
    from cowbird.scanning.calibrating import Calibrated

CALIBRATE_EXAMPLES = (
    "cowbird calibrate items.csv --out scanner.calibrated",
    "cowbird scan uploads.csv --scanner scanner.calibrated --out findings.csv",
)


@name_command_again
@take_read_options
def calibrate(
    catalog: CatalogArgument,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The scanner's file; an older one is replaced.")],
    text_column: TextColumnOption = "title",
    fpr: Annotated[float, typer.Option(help="Share of clean titles that may be flagged.")] = 0.01,
    review_fpr: Annotated[
        float | None,
        typer.Option(help="Share of clean titles that may be flagged or put up for review; 0.05 by default."),
    ] = None,
    tagger: TaggerOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Calibrate the ready scanner on titles that are taken for clean, for later scans and single uploads.

    The file says what is usual among these titles and how such titles score. Of the titles themselves it holds 192 at
    most, which the language model reads before it judges others; with --tagger small it holds none. `cowbird scan
    --scanner FILE` judges other titles by it, a single one too. Titles that are poisoned here teach it that their
    trigger is usual: scan them first.

    Exit codes: 0 written, 2 error, 3 interrupted, or written although some rows could not be read.
    """
    check_outputs({"--out": out}, {"the catalogue": catalog, "--tagger": tagger})
    check_writable({"--out": out})
    with show_loading("loading libraries", quiet=quiet):
        from cowbird.scanning import calibrating  # noqa: PLC0415
        from cowbird.victims.fit_context import pick_device  # noqa: PLC0415

    place = str(pick_device(device))
    source = choose_tagger(tagger, place)
    if isinstance(source, Path):
        raise UserError(
            "A calibration in a file knows the taggers that come with Cowbird alone.",
            f"Keep yours beside it: cowbird fit-scanner CATALOG --tagger {tagger} --out DIR.",
        )
    with make_progress(quiet=quiet) as shown:
        rows, titles = shown.add_task("rows read"), shown.add_task("titles read")
        try:
            made = calibrating.calibrate_catalog(
                catalog, out, place, fpr, review_fpr, text_column,
                lambda done, total, remark: shown.update(rows, done=done, total=total, note=remark),
                lambda done, total, remark: shown.update(titles, done=done, total=total, note=remark),
                tagger=source,
            )  # fmt: skip
        except KeyboardInterrupt:
            shown.stop()
            exit_resumable("Interrupted; nothing was written.", lead="Run again")
    if as_json:
        print_json(calibrating.describe_calibrated(made))
    elif not quiet:
        out_console.print(_format_made(made))
    if made.unread:
        raise typer.Exit(ExitCode.INCOMPLETE)


def _format_made(made: "Calibrated") -> Group:
    from cowbird.scanning import calibrating  # noqa: PLC0415

    return calibrating.format_calibrated(made)
