"""`cowbird train-scanner`: a tagger, trained on lists of titles that a recipe names."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from cowbird.cli.options import DeviceOption, JsonOption, QuietOption
from cowbird.cli.progress import make_progress
from cowbird.cli.reading import take_read_options
from cowbird.cli.terminal import exit_resumable, name_command_again, out_console, print_json
from cowbird.errors import ExitCode, UserError
from cowbird.outputs import check_outputs, check_writable
from cowbird.report.terminal import sanitize_text

if TYPE_CHECKING:
    from cowbird.scanning.tagger_training import TrainedTagger

TRAIN_SCANNER_EXAMPLES = (
    "cowbird train-scanner recipe.toml --out tagger",
    "cowbird scan items.csv --tagger tagger --out findings.csv",
)


@name_command_again
@take_read_options
def train_scanner(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A TOML file; see docs/how-to/train_scanner.md.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the tagger, new or empty.")],
    workers: Annotated[int, typer.Option(min=0, help="Processes that draw examples; 0 draws them here.")] = 0,
    device: DeviceOption = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted training (DIR.partial).")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a tagger, which marks planted triggers in titles, on lists that a recipe names.

    What it finds in lists that were held out is measured at the end, and stands in its model card. `cowbird scan
    --tagger DIR` uses it. The same recipe gives the same tagger on one device.

    Exit codes: 0 made, 2 error, 3 interrupted, or made although some rows could not be read.
    """
    from pydantic import ValidationError  # noqa: PLC0415

    from cowbird.experiments.field_errors import explain_errors  # noqa: PLC0415
    from cowbird.scanning import tagger_training, training_recipe  # noqa: PLC0415
    from cowbird.victims.fit_context import FitContext, pick_device  # noqa: PLC0415

    place = pick_device(device)
    try:
        wanted = training_recipe.read_training_recipe(recipe)
    except ValidationError as error:
        raise UserError(
            f"{recipe.name} can't be used: {explain_errors(error)}", "See docs/how-to/train_scanner.md."
        ) from None
    unfinished = [out.with_name(f"{out.name}.partial")] if out.name else []
    lists = [each.path for each in (wanted.lists | wanted.held_out).values()]
    check_outputs({"--out": [out, *unfinished]}, {"RECIPE": recipe, "a list of RECIPE": lists})
    check_writable({}, {"--out": out})
    with make_progress(quiet=quiet) as shown:
        task = shown.add_task("reading lists")

        def show_step(done: int, total: int, remark: str) -> None:
            asking = remark.startswith("asking")
            phase = "asking about held-out lists" if asking else "steps"
            shown.update(task, phase=phase, done=done, total=total, note="" if asking else remark)

        try:
            work = FitContext(place, report=show_step, warn=shown.warn)
            made = tagger_training.train_scanner(wanted, out, work, resume, workers)
        except KeyboardInterrupt:
            shown.stop()
            exit_resumable("Interrupted.", "--resume")
    if as_json:
        print_json(_make_record(made))
    elif not quiet:
        out_console.print(tagger_training.format_training(made))
        out_console.print(Text("Tagger: ") + sanitize_text(str(out), 300))
    if made.unread:
        raise typer.Exit(ExitCode.INCOMPLETE)


def _make_record(made: "TrainedTagger") -> dict[str, Any]:
    """Return what a training came to, as plain JSON values."""
    from cowbird.scanning.unread import describe_unread  # noqa: PLC0415

    return {
        "tagger": str(made.folder),
        "titles": made.titles,
        "evaluation": made.evaluation,
        "unread": [{"list": name, **each} for name, rows in made.unread.items() for each in describe_unread(rows)],
        "finished_before": made.before,
    }
