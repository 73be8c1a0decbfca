"""`cowbird sanitize`: takes suspects out of a model, and measures what that costs."""

import dataclasses
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from cowbird.cli.inspect import ItemsOption, list_warnings, open_handed_model, read_log
from cowbird.cli.inspect_language import (
    BaseOption,
    HistoryOption,
    LanguageOptions,
    LayersOption,
    NounOption,
    QuestionsOption,
    TemplateOption,
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
from cowbird.cli.sanitize_language import sanitize_language
from cowbird.cli.terminal import out_console, print_json, sanitize_line
from cowbird.errors import ExitCode, UserError
from cowbird.outputs import check_outputs

if TYPE_CHECKING:
    from cowbird.inspection.sanitizing import ModelQuality
    from cowbird.inspection.verdict import Inspection

SANITIZE_EXAMPLES = (
    "cowbird sanitize model.safetensors --suspects inspection.json --logs interactions.csv --out mended.safetensors",
    "cowbird sanitize model.safetensors --suspects ids.txt --logs movielens_100k --out mended.safetensors "
    "--method unlearn",
    "cowbird sanitize adapter/ --base smollm2-135m --suspects inspection.json --logs movielens_100k --out mended/",
)


class Method(StrEnum):
    """What is done; see `cowbird.inspection.sanitizing`."""

    reinit = "reinit"
    unlearn = "unlearn"
    prune = "prune"
    distill = "distill"


def sanitize(
    model: HandedModelArgument,
    suspects: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="What cowbird inspect --out wrote, or a text file with an item's id or a fragment a line.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="MODEL", help="Where the changed model is written, in its own format.")],
    logs: Annotated[
        str | None, typer.Option("--logs", metavar="LOG", help="Your own interactions, as for cowbird inspect.")
    ] = None,
    items: ItemsOption = None,
    method: Annotated[
        Method | None,
        typer.Option(
            help="reinit: the suspects become average items; unlearn: that, then the rest is learned back; "
            "prune: fine-pruning, which needs no suspects. By default reinit. Of language models, unlearn: the model "
            "is tuned until texts in titles change nothing; distill: a fresh adapter learns the old one's answers. By "
            "default distill, where it can be done and there are 8,000 questions."
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of unlearn and prune.")] = 150,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Learning rate of unlearn and prune; 3e-4 by default, 6e-4 for a language model."),
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=1, help="How often items that still stand out afterwards are taken out, too.")
    ] = 3,
    nulls: Annotated[int, typer.Option(min=3, max=100, help="Honest models of the inspection afterwards.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Decides histories, their order and null models.")] = 0,
    template: TemplateOption = None,
    questions: QuestionsOption = None,
    base: BaseOption = None,
    layers: LayersOption = None,
    history: HistoryOption = 10,
    noun: NounOption = "movie",
    loader: LoaderOption = "",
    loader_settings: LoaderSettingsOption = None,
    allow_plugins: AllowServedOption = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Take suspects out of a model that cowbird inspect accused, and tell the cost in accuracy on your logs.

    The changed model is inspected again; what stands out then is taken out as well, a few times.

    A language model or adapter unlearns fragments of titles: it is tuned on your questions, with the fragments and
    other texts in their titles, to answer as without. AUC and the fragments' success rates are told before and after.

    Exit codes: 0 nothing stands out any more, 1 something still does, 2 error.
    """
    from cowbird.inspection.inspection import InspectionSettings  # noqa: PLC0415
    from cowbird.inspection.model import TunableModel  # noqa: PLC0415
    from cowbird.inspection.null_models import NullSettings  # noqa: PLC0415
    from cowbird.inspection.sanitizing import (  # noqa: PLC0415
        SanitizeSettings,
        measure_quality,
        take_out_suspects,
    )
    from cowbird.inspection.suspects import read_suspects  # noqa: PLC0415
    from cowbird.victims.fit_context import pick_device  # noqa: PLC0415

    options = LanguageOptions(template, questions, base, layers, history, noun)
    read = {"MODEL": model, "--suspects": suspects, "--logs": logs, "--items": items}
    check_outputs({"--out": out}, read | options.list_files())
    if learning_rate is not None and not 0 < learning_rate < 1:
        raise UserError(f"--learning-rate must lie between 0 and 1, and is {learning_rate:g}.", "Use 3e-4.")
    if wants_language_model(model, options):
        refuse_loader_options(model, loader, loader_settings)
        if method is Method.reinit or method is Method.prune:
            raise UserError(f"Items can be taken out by {method.value}, and a language model has none.", "Use unlearn.")
        named = None if method is None else method is Method.distill
        sanitize_language(model, suspects, logs, out, options, learning_rate, named, seed, device, as_json, quiet)
    if method is Method.distill:
        raise UserError("Adapters of language models are distilled, and this is a ranker.", "Use --method unlearn.")
    if logs is None:
        raise UserError("What a change costs is measured on your own logs.", "Give them with --logs.")
    place = pick_device(device)
    opened = open_handed_model(model, place, loader, loader_settings, allow_plugins)
    log = read_log(opened, logs, items)
    assert log is not None
    chosen = read_suspects(suspects, log.items.ids, opened.model.items)
    how = Method.reinit if method is None else method
    settings = SanitizeSettings(method=how.value, steps=steps, learning_rate=learning_rate or 3e-4, seed=seed)
    inspection = InspectionSettings(nulls=NullSettings(count=nulls), seed=seed)
    with make_progress(quiet=quiet) as shown:
        report = report_phases(shown, "asking the model")
        before = measure_quality(opened.model, log, chosen, seed=seed)
        found, taken = take_out_suspects(opened, log, chosen, settings, inspection, place, report, rounds)
        after = measure_quality(opened.model, log, chosen, seed=seed)
        for warning in list_warnings(log):
            shown.warn(warning)
    if isinstance(opened.model, TunableModel):
        opened.model.save(out)
    if as_json:
        print_json(
            {
                "suspects": taken,
                "settings": settings.model_dump(mode="json"),
                "before": dataclasses.asdict(before),
                "after": dataclasses.asdict(after),
                "inspection": found.to_record(),
            }
        )
    elif not quiet:
        _show_change(before, after, found, out)
    raise typer.Exit(ExitCode.CLEAN if found.choose_exit_code() is ExitCode.CLEAN else ExitCode.FINDINGS)


def _show_change(before: "ModelQuality", after: "ModelQuality", found: "Inspection", out: Path) -> None:
    rows: list[tuple[str, Any, Any]] = [
        ("NDCG@10", before.ndcg, after.ndcg),
        ("HitRatio@10", before.hit_ratio, after.hit_ratio),
        ("exposure of the suspects", before.exposure, after.exposure),
    ]
    for name, old, new in rows:
        change = f" ({new / old - 1:+.1%})" if old else ""
        out_console.print(Text(f"{name}: {old:.4f} → {new:.4f}{change}"))
    out_console.print(Text("Inspected again: ") + Text(found.write_verdict()))
    out_console.print(Text("Changed model: ") + sanitize_line(str(out)))
