"""`cowbird stealth`: how visible triggers are in titles."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from cowbird.cli.options import DeviceOption
from cowbird.cli.terminal import make_progress, out_console
from cowbird.errors import UserError
from cowbird.report.terminal import sanitize_text


def stealth(
    trigger: Annotated[
        list[str], typer.Option("--trigger", metavar="KIND", help="Name of a shipped trigger; repeat it for more.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.csv", help="The table; an older one is replaced.")],
    dataset: Annotated[str, typer.Option(help="Whose titles: a dataset that needs no options.")] = "movielens_100k",
    llm: Annotated[
        str, typer.Option(help="Who reads them: an embedded model, a folder, a GGUF file or a hub id.")
    ] = "smollm2-135m",
    titles: Annotated[int | None, typer.Option(min=1, help="Titles drawn; all by default.")] = None,
    layers: Annotated[int | None, typer.Option(min=1, help="Layers of the model kept; all by default.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws titles, places and resamples.")] = 0,
    device: DeviceOption = "auto",
) -> None:
    """Measure how visible triggers are in titles: perplexity, edits, hidden characters, similarity."""
    from cowbird.experiments.stealth import find_shipped_triggers, load_catalog, measure_stealth, table_to_csv  # noqa: PLC0415
    from cowbird.files import replace_atomically  # noqa: PLC0415
    from cowbird.report.stealth import make_stealth_table  # noqa: PLC0415
    from cowbird.victims.fit_context import pick_device  # noqa: PLC0415
    from cowbird.victims.language.llm import Llm  # noqa: PLC0415

    if out.is_dir():
        raise UserError(f"'{out}' is a folder.", "Name a file, such as stealth.csv.")
    triggers, place, items = find_shipped_triggers(trigger), pick_device(device), load_catalog(dataset)
    model = Llm(name=llm, layers=layers)
    # The file is opened first: nobody should wait for a table that can't be written.
    with make_progress(left=True) as shown, replace_atomically(out) as partial:
        task = shown.add_task("titles as they are", total=len(triggers) + 1)
        rows = measure_stealth(
            model, items, triggers, seed, place, titles,
            lambda done, total, remark: shown.update(task, description=remark, completed=done, total=total),
        )  # fmt: skip
        partial.write_text(table_to_csv(rows), encoding="utf-8")
    out_console.print(make_stealth_table(rows))
    notes = (
        "Medians over the titles that a trigger changes. Perplexity: by what factor it grew, a mean over tokens; bits: "
        "surprise added, a sum; hidden: share of titles that gained a control or format character."
    )
    out_console.print(Text(notes, style="dim"))
    out_console.print(Text("Table: ") + sanitize_text(str(out), 300))
