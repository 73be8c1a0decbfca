"""`cowbird zoo`: a zoo of clean and planted models, inspected and scored."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from cowbird.cli.options import DeviceOption, JsonOption, QuietOption
from cowbird.cli.progress import make_progress, report_phases
from cowbird.cli.terminal import exit_resumable, out_console, print_json, sanitize_line

ZOO_EXAMPLES = (
    "cowbird zoo benchmarks/zoo/rankers_ml100k.toml --out runs/zoo",
    "cowbird zoo benchmarks/zoo/rankers_ml1m.toml --out runs/zoo --device cuda",
    "cowbird zoo benchmarks/zoo/rankers_ml100k.toml --out runs/zoo --only score --json",
    "cowbird zoo benchmarks/zoo/language_tiny_ml100k.toml --out runs/zoo",
)


class ZooStep(StrEnum):
    """A part of the work."""

    make = "make"
    inspect = "inspect"
    score = "score"


def zoo(
    recipe: Annotated[Path, typer.Argument(help="A TOML file that says what the zoo is made from.", metavar="RECIPE")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The zoo's folder; one of the same recipe grows.")],
    only: Annotated[ZooStep | None, typer.Option(help="One part of the work; all three by default.")] = None,
    nulls: Annotated[
        int, typer.Option(min=3, max=100, help="Honest models that inspection fits; a recipe of language models says.")
    ] = 5,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make clean and planted models from a recipe, inspect them without the answers, and score the inspections.

    The recipe says whether they are rankers or language models. Their names tell nothing; the answers are sealed
    beside them. Work that was interrupted goes on by itself.
    """
    from cowbird.inspection.inspection import InspectionSettings  # noqa: PLC0415
    from cowbird.inspection.null_models import NullSettings  # noqa: PLC0415
    from cowbird.inspection.zoo.language_recipe import is_language_recipe  # noqa: PLC0415
    from cowbird.inspection.zoo.recipe import read_recipe  # noqa: PLC0415
    from cowbird.inspection.zoo.run import Zoo  # noqa: PLC0415
    from cowbird.inspection.zoo.scoring import read_zoo, score_zoo  # noqa: PLC0415
    from cowbird.storage import write_sealed_json  # noqa: PLC0415
    from cowbird.victims.fit_context import pick_device  # noqa: PLC0415

    if is_language_recipe(recipe):
        _run_language_zoo(recipe, out, only, device, as_json, quiet)
        return
    plan = read_recipe(recipe)
    shown_items = max(50, *(2 * plant.targets[1] for plant in plan.plants))
    settings = InspectionSettings(nulls=NullSettings(count=nulls), shown=shown_items)
    if only != ZooStep.score:
        held = Zoo(plan, out, pick_device(device))
        with make_progress(left=True, quiet=quiet) as shown:
            report = report_phases(shown, "models")
            try:
                if only != ZooStep.inspect:
                    held.make(report)
                if only != ZooStep.make:
                    held.inspect(settings, report)
            except KeyboardInterrupt:
                shown.stop()
                exit_resumable("Interrupted.")
        if only is not None:
            return
    scores = score_zoo(read_zoo(out))
    write_sealed_json(out / "scores.json", scores)
    if as_json:
        print_json(scores)
    elif not quiet:
        _show_scores(scores, out)


def _run_language_zoo(recipe: Path, out: Path, only: ZooStep | None, device: str, as_json: bool, quiet: bool) -> None:
    """Make, inspect and score language models."""
    from cowbird.inspection.zoo.language_recipe import read_language_recipe  # noqa: PLC0415
    from cowbird.inspection.zoo.language_run import LanguageZoo  # noqa: PLC0415
    from cowbird.inspection.zoo.language_scoring import read_language_zoo, score_language_zoo  # noqa: PLC0415
    from cowbird.report.inspection import make_accusation_table  # noqa: PLC0415
    from cowbird.report.language_inspection import make_language_zoo_table  # noqa: PLC0415
    from cowbird.storage import write_sealed_json  # noqa: PLC0415
    from cowbird.victims.fit_context import pick_device  # noqa: PLC0415

    plan = read_language_recipe(recipe)
    if only != ZooStep.score:
        held = LanguageZoo(plan, out, pick_device(device))
        with make_progress(left=True, quiet=quiet) as shown:
            report = report_phases(shown, "models")
            try:
                if only != ZooStep.inspect:
                    held.make(report)
                if only != ZooStep.make:
                    held.inspect(report)
            except KeyboardInterrupt:
                shown.stop()
                exit_resumable("Interrupted.")
        if only is not None:
            return
    scores = score_language_zoo(read_language_zoo(out))
    write_sealed_json(out / "scores.json", scores)
    if as_json:
        print_json(scores)
    elif not quiet:
        out_console.print(make_language_zoo_table(scores))
        out_console.print(make_accusation_table(scores))
        out_console.print(Text("Scores: ") + sanitize_line(str(out / "scores.json")))


def _show_scores(scores: dict[str, Any], out: Path) -> None:
    from cowbird.report.inspection import make_accusation_table, make_zoo_table  # noqa: PLC0415

    out_console.print(make_zoo_table(scores))
    out_console.print(make_accusation_table(scores))
    out_console.print(Text("Scores: ") + sanitize_line(str(out / "scores.json")))
