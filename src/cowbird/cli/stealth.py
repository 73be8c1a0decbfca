"""`cowbird stealth`: how visible triggers are in titles."""

from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from cowbird.cli.options import DeviceOption, JsonOption, QuietOption, TextColumnOption
from cowbird.cli.progress import make_progress
from cowbird.cli.reading import take_read_options
from cowbird.cli.terminal import out_console, print_json
from cowbird.errors import UserError
from cowbird.outputs import check_outputs
from cowbird.report.terminal import sanitize_text

if TYPE_CHECKING:
    from cowbird.attacks.triggers import Trigger
    from cowbird.data.types import Items

STEALTH_EXAMPLES = (
    "cowbird stealth --trigger char_5v --trigger zero_width_space",
    'cowbird stealth --text "as seen on TV" --position start --titles items.csv',
    "cowbird stealth --text 5v --dataset movielens_100k --sample 200 --out stealth.csv",
)


class TextPosition(StrEnum):
    """Where in a title a text of one's own stands."""

    start = "start"
    middle = "middle"
    end = "end"


@take_read_options
def stealth(
    trigger: Annotated[
        list[str] | None,
        typer.Option("--trigger", metavar="NAME", help="A shipped trigger (cowbird list triggers); repeat for more."),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", help="A text of your own as the trigger; repeat for more.")
    ] = None,
    position: Annotated[TextPosition, typer.Option(help="Where triggers stand in titles.")] = TextPosition.end,
    titles: Annotated[
        Path | None, typer.Option("--titles", metavar="FILE", help="Your titles: CSV, TSV, JSON Lines or Parquet.")
    ] = None,
    text_column: TextColumnOption = "title",
    dataset: Annotated[
        str | None, typer.Option(help="Titles of a dataset that needs no options; movielens_100k by default.")
    ] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Titles drawn; all by default.")] = None,
    llm: Annotated[
        str,
        typer.Option(help="Who reads them: an embedded model, a folder, a GGUF file, or one downloaded from a hub."),
    ] = "smollm2-135m",
    layers: Annotated[int | None, typer.Option(min=1, help="Layers of the model kept; all by default.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws titles, places and resamples.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.csv", help="Also write the table; an older one is replaced.")
    ] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure how visible triggers are in titles: perplexity, edits, hidden characters, similarity.

    Each trigger is planted in all titles, and a language model reads them before and after. Nothing is trained.
    """
    from cowbird.experiments.stealth import measure_stealth, table_to_csv  # noqa: PLC0415
    from cowbird.files import replace_atomically  # noqa: PLC0415
    from cowbird.victims.fit_context import pick_device  # noqa: PLC0415
    from cowbird.victims.language.llm import Llm  # noqa: PLC0415

    if out is not None and out.is_dir():
        raise UserError(f"'{out}' is a folder.", "Name a file, such as stealth.csv.")
    check_outputs({"--out": out}, {"--titles": titles, "--llm": llm})
    triggers = _make_triggers(trigger or [], text or [], position)
    place, items = pick_device(device), _load_titles(titles, text_column, dataset)
    model = Llm(name=llm, layers=layers)
    # The file is opened first: nobody should wait for a table that can't be written.
    with make_progress(left=True, quiet=quiet) as shown, replace_atomically(out) if out else nullcontext() as partial:
        task = shown.add_task("titles as they are")
        rows = measure_stealth(
            model, items, triggers, seed, place, sample,
            lambda done, total, remark: shown.update(task, phase=remark, done=done, total=total),
        )  # fmt: skip
        if partial is not None:
            partial.write_text(table_to_csv(rows), encoding="utf-8")
    if as_json:
        print_json(rows)
    elif not quiet:
        _show_rows(rows, out)


def _make_triggers(kinds: list[str], texts: list[str], position: TextPosition) -> list["Trigger"]:
    """Return the triggers that the options name."""
    from cowbird.experiments.stealth import find_shipped_triggers, make_text_triggers  # noqa: PLC0415

    if not kinds and not texts:
        raise UserError("No trigger is named.", 'Add --trigger NAME (cowbird list triggers), or --text "some text".')
    shipped = [trigger.model_copy(update={"position": position.value}) for trigger in find_shipped_triggers(kinds)]
    return shipped + make_text_triggers(texts, position.value)


def _load_titles(file: Path | None, column: str, dataset: str | None) -> "Items":
    """Return the titles that the options name."""
    from cowbird.experiments.stealth import load_catalog, load_title_file  # noqa: PLC0415

    if file is None:
        return load_catalog(dataset or "movielens_100k")
    if dataset is not None:
        raise UserError("--titles and --dataset both name titles.", "Leave one of them out.")
    return load_title_file(file, column)


def _show_rows(rows: list[dict[str, Any]], out: Path | None) -> None:
    from cowbird.report.stealth import make_stealth_table  # noqa: PLC0415

    out_console.print(make_stealth_table(rows))
    notes = (
        "Medians over the titles that a trigger changes. Perplexity: by what factor it grew, a mean over tokens; bits: "
        "surprise added, a sum; hidden: share of titles that gained a control or format character."
    )
    out_console.print(Text(notes, style="dim"))
    if out is not None:
        out_console.print(Text("Table: ") + sanitize_text(str(out), 300))
