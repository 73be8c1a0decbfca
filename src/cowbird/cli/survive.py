"""`cowbird survive`: would planted items survive your fine-tuning?"""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from cowbird.cli.inspect import ItemsOption, list_warnings, open_handed_model, read_log
from cowbird.cli.options import (
    AllowServedOption,
    DeviceOption,
    HandedModelArgument,
    JsonOption,
    LoaderOption,
    LoaderSettingsOption,
    QuietOption,
)
from cowbird.cli.progress import make_progress, report_phases
from cowbird.cli.terminal import out_console, print_json, sanitize_line
from cowbird.errors import UserError
from cowbird.outputs import check_outputs

SURVIVE_EXAMPLES = (
    "cowbird survive model.safetensors --logs interactions.csv --suspects inspection.json",
    "cowbird survive SASRec.pth --logs log.csv --items items.txt --suspects ids.txt --rate 1e-4 --epochs 3",
)


def survive(
    model: HandedModelArgument,
    logs: Annotated[str, typer.Option("--logs", metavar="LOG", help="Your own interactions; see cowbird inspect.")],
    suspects: Annotated[
        Path,
        typer.Option("--suspects", metavar="FILE", help="What cowbird inspect --out wrote, or an id a line."),
    ],
    items: ItemsOption = None,
    rate: Annotated[list[float] | None, typer.Option("--rate", help="A learning rate; may be repeated.")] = None,
    epochs: Annotated[list[int] | None, typer.Option("--epochs", help="Passes over the log; may be repeated.")] = None,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Fits of each kind.")] = 1,
    max_events: Annotated[int | None, typer.Option(min=100, help="Events of the logs used at most.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Where the result is written; an older one is replaced.")
    ] = None,
    loader: LoaderOption = "",
    loader_settings: LoaderSettingsOption = None,
    allow_plugins: AllowServedOption = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Replay your fine-tuning on a model that somebody handed over, and see how much of the suspects' exposure stays.

    The model is tuned on your logs at several learning rates and for several epochs. Exposure of the suspects and
    NDCG@10 are measured before and after. The model's file is not changed.

    Exit codes: 0 it was measured, 2 error.
    """
    from cowbird.inspection.survival import SurvivalSettings, measure_survival  # noqa: PLC0415
    from cowbird.inspection.suspects import read_suspects  # noqa: PLC0415
    from cowbird.report.survival import make_survival_table  # noqa: PLC0415
    from cowbird.victims.fit_context import pick_device  # noqa: PLC0415

    if out is not None and out.is_dir():
        raise UserError(f"'{out}' is a folder.", "Name a file, such as survival.json.")
    check_outputs({"--out": out}, {"MODEL": model, "--logs": logs, "--items": items, "--suspects": suspects})
    place = pick_device(device)
    opened = open_handed_model(model, place, loader, loader_settings, allow_plugins)
    log = read_log(opened, logs, items)
    assert log is not None
    wanted = read_suspects(suspects, log.items.ids, opened.model.items)
    plain = SurvivalSettings()
    settings = plain.model_copy(
        update={
            "learning_rates": tuple(rate or plain.learning_rates),
            "epochs": tuple(epochs or plain.epochs),
            "seeds": seeds,
            "max_events": max_events,
        }
    )
    with make_progress(quiet=quiet) as shown:
        found = measure_survival(opened, log, wanted, settings, place, report_phases(shown, "asking the model"))
        for warning in list_warnings(log):
            shown.warn(warning)
    if out is not None:
        found.write(out)
    if as_json:
        print_json(found.to_record())
    elif not quiet:
        out_console.print(make_survival_table(found))
        if out is not None:
            out_console.print(Text("Result: ") + sanitize_line(str(out)))
