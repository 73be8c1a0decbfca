"""`cowbird inspect`: does a model that somebody handed over show planted items, or follow a planted trigger?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cowbird.cli.inspect_language import (
    BaseOption,
    HeldOutOption,
    HistoryOption,
    LanguageOptions,
    LayersOption,
    NounOption,
    NullQuestionsOption,
    QuestionsOption,
    TemplateOption,
    WordsOption,
    inspect_language_and_show,
    print_inspection,
    refuse_loader_options,
    wants_language_model,
)
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
from cowbird.cli.terminal import print_json
from cowbird.errors import UserError
from cowbird.outputs import check_outputs

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from cowbird.inspection.language.settings import LanguageSettings
    from cowbird.inspection.model import OpenedModel
    from cowbird.inspection.platform_log import PlatformLog
    from cowbird.inspection.verdict import Inspection

INSPECT_EXAMPLES = (
    "cowbird inspect model.safetensors --logs interactions.csv --out inspection.json",
    "cowbird inspect model.safetensors --logs movielens_100k --nulls 9 --level 0.05",
    "cowbird inspect SASRec.pth --logs interactions.csv --items items.txt",
    "cowbird inspect model.safetensors",
    "cowbird inspect adapter/ --base smollm2-135m --logs movielens_100k --template tallrec --out inspection.json",
)
LogsOption = Annotated[
    str | None,
    typer.Option(
        "--logs",
        metavar="LOG",
        help="Your own interactions: a .csv or .parquet with user_id and item_id, a folder of atomic files, or a "
        "dataset's name.",
    ),
]
ItemsOption = Annotated[
    Path | None,
    typer.Option(
        "--items",
        metavar="FILE",
        help="The ids of the model's items in its order: an id a line, or a .csv with a column item_id.",
    ),
]


def inspect(
    model: HandedModelArgument,
    logs: LogsOption = None,
    items: ItemsOption = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="Where the inspection is written; an older one is replaced."),
    ] = None,
    nulls: Annotated[
        int, typer.Option(min=3, max=100, help="Honest models that are fitted to the logs, to compare with.")
    ] = 5,
    null_events: Annotated[
        int | None,
        typer.Option(min=100, help="Events of the logs that those learn from; on a GPU all, on a CPU 60,000."),
    ] = None,
    level: Annotated[float, typer.Option(help="Share of honest models that may be accused.")] = 0.01,
    histories: Annotated[int, typer.Option(min=100, max=100_000, help="Histories of each kind.")] = 3000,
    seed: Annotated[int, typer.Option(min=0, help="Decides histories and null models.")] = 0,
    template: TemplateOption = None,
    questions: QuestionsOption = None,
    base: BaseOption = None,
    layers: LayersOption = None,
    history: HistoryOption = 10,
    noun: NounOption = "movie",
    words: WordsOption = None,
    held_out: HeldOutOption = 200,
    null_questions: NullQuestionsOption = 2000,
    loader: LoaderOption = "",
    loader_settings: LoaderSettingsOption = None,
    allow_plugins: AllowServedOption = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Look for what was planted in a recommender that somebody handed over. No trigger need be known.

    The model is asked about your own users, random histories and single items. Items that it shows far more often than
    honest models of the same platform do are suspects. Those models are fitted to your logs, once; their answers are
    kept in the cache.

    A folder is taken for a language model or an adapter. Fragments of titles are tried that turn its answers: words,
    short strings, tokens and sentences. Honest adapters of the same base are tuned on your questions, once.

    Exit codes: 0 nothing stands out, 1 suspects, 2 error, 3 no logs or no base, so no verdict.
    """
    options = LanguageOptions(template, questions, base, layers, history, noun)
    check_outputs({"--out": out}, {"MODEL": model, "--logs": logs, "--items": items, **options.list_files()})
    if wants_language_model(model, options):
        refuse_loader_options(model, loader, loader_settings)
        settings = make_language_settings(words, held_out, level, nulls, null_questions, seed, out)
        spoken = inspect_language_and_show(model, logs, options, settings, out, device, as_json, quiet)
        raise typer.Exit(spoken.choose_exit_code())
    found = inspect_and_show(
        model, logs, items, out, nulls, null_events, level, histories, seed, device, as_json, quiet,
        lambda path, place: open_handed_model(path, place, loader, loader_settings, allow_plugins),
    )  # fmt: skip
    raise typer.Exit(found.choose_exit_code())


def make_language_settings(
    words: int | None, held_out: int, level: float, nulls: int, null_questions: int, seed: int, out: Path | None
) -> "LanguageSettings":
    """Return how a language model is searched, as options say."""
    from cowbird.inspection.language.settings import LanguageNullSettings, LanguageSettings  # noqa: PLC0415

    check_level(level, out)
    known = LanguageNullSettings(count=nulls, questions=null_questions)
    return LanguageSettings(words=words, held_out=held_out, level=level, nulls=known, seed=seed)


def check_level(level: float, out: Path | None) -> None:
    """Check what all inspections are given.

    Raises:
        UserError: If the level is no share, or the file that is to be written is a folder.
    """
    if not 0 < level < 0.5:
        raise UserError(f"--level must lie between 0 and 0.5, and is {level:g}.", "Use 0.01 or 0.05.")
    if out is not None and out.is_dir():
        raise UserError(f"'{out}' is a folder.", "Name a file, such as inspection.json.")


def open_handed_model(
    model: str, device: "torch.device", loader: str, settings: list[str] | None, allow_plugins: bool
) -> "OpenedModel":
    """Open the model that an argument names, as options say."""
    from cowbird.inspection.opening import open_model  # noqa: PLC0415
    from cowbird.victims.loaders.opening import CheckpointOptions, parse_settings  # noqa: PLC0415

    return open_model(model, device, CheckpointOptions(loader, parse_settings(settings or [])), allow_plugins)


def inspect_and_show(
    model: str | Path,
    logs: str | None,
    items: Path | None,
    out: Path | None,
    nulls: int = 5,
    null_events: int | None = None,
    level: float = 0.01,
    histories: int = 3000,
    seed: int = 0,
    device: str = "auto",
    as_json: bool = False,
    quiet: bool = False,
    open_model: "Callable[[str, torch.device], OpenedModel] | None" = None,
) -> "Inspection":
    """Inspect a model, show how it goes and what came of it."""
    from cowbird.inspection.inspection import InspectionSettings, inspect_ranker  # noqa: PLC0415
    from cowbird.inspection.null_models import NullSettings  # noqa: PLC0415
    from cowbird.inspection.opening import open_model as open_plainly  # noqa: PLC0415
    from cowbird.processes import count_processors  # noqa: PLC0415
    from cowbird.victims.fit_context import pick_device  # noqa: PLC0415

    check_level(level, out)
    place = pick_device(device)
    opened = (open_model or open_plainly)(str(model), place)
    log = read_log(opened, logs, items)
    settings = InspectionSettings(
        histories=histories, level=level, nulls=NullSettings(count=nulls, max_events=null_events), seed=seed
    )
    with make_progress(quiet=quiet) as shown:
        told = report_phases(shown, "asking the model")
        found = inspect_ranker(opened, log, settings, place, told, count_processors())
        for warning in [] if log is None else list_warnings(log):
            shown.warn(warning)
    if out is not None:
        found.write(out)
    if as_json:
        print_json(found.to_record())
    elif not quiet:
        show_inspection(found, out)
    return found


def read_log(opened: "OpenedModel", logs: str | None, items: Path | None) -> "PlatformLog | None":
    """Read the logs that an option names, numbered as the model numbers its items."""
    from cowbird.inspection import platform_log  # noqa: PLC0415

    if logs is None:
        if items is not None:
            raise UserError("--items tells which items of the logs are which, and no logs are given.", "Add --logs.")
        return None
    ids = opened.item_ids if items is None else platform_log.read_item_ids(items, opened.model.items)
    return platform_log.align_log(platform_log.load_log(logs), opened.model.items, ids)


def list_warnings(log: "PlatformLog") -> list[str]:
    """Return what a reader should know about the logs."""
    if not log.dropped:
        return []
    return [f"{log.dropped:,} events of the logs are of items that the model does not know; they are left out."]


def show_inspection(found: "Inspection", out: Path | None) -> None:
    """Print an inspection."""
    from cowbird.report.inspection import format_lines, make_item_table  # noqa: PLC0415

    print_inspection(format_lines(found), make_item_table(found), out)
