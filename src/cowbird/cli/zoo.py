"""`cowbird zoo`: a zoo of clean and planted models, inspected and scored."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from cowbird.cli.options import DeviceOption, JsonOption, QuietOption
from cowbird.cli.progress import make_progress, report_phases
from cowbird.cli.terminal import exit_resumable, out_console, print_json, sanitize_line
from cowbird.errors import UserError
from cowbird.outputs import check_outputs

ZOO_EXAMPLES = (
    "cowbird zoo benchmarks/zoo/rankers_ml100k.toml --out runs/zoo",
    "cowbird zoo benchmarks/zoo/rankers_ml1m.toml --out runs/zoo --device cuda",
    "cowbird zoo benchmarks/zoo/rankers_ml100k.toml --out runs/zoo --only score --json",
    "cowbird zoo benchmarks/zoo/language_tiny_ml100k.toml --out runs/zoo",
)


class ChosenStep(StrEnum):
    """A part of the work."""

    make = "make"
    inspect = "inspect"
    sanitize = "sanitize"
    score = "score"


def zoo(
    recipe: Annotated[Path, typer.Argument(help="A TOML file that says what the zoo is made from.", metavar="RECIPE")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The zoo's folder; one of the same recipe grows.")],
    only: Annotated[
        ChosenStep | None, typer.Option(help="One part of the work; by default all of them but sanitize.")
    ] = None,
    sanitize: Annotated[
        bool, typer.Option("--sanitize", help="Take out what was found as well, and measure what that changes.")
    ] = False,
    part: Annotated[
        str,
        typer.Option(
            metavar="I/N", help="Part I of N of the models, unscored, so that several processes share a folder."
        ),
    ] = "",
    drop_models: Annotated[
        bool, typer.Option("--drop-models", help="Remove each model's weights once it is done, to save room.")
    ] = False,
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

    Exit codes: 0 done, 2 error, 3 interrupted.
    """
    from cowbird.inspection.zoo.folder import ZooStep  # noqa: PLC0415
    from cowbird.inspection.zoo.language_recipe import is_language_recipe  # noqa: PLC0415
    from cowbird.storage import write_sealed_json  # noqa: PLC0415

    check_outputs({"--out": [out / "scores.json", out / "zoo.json"]}, {"RECIPE": recipe})
    share = _read_part(part)
    if sanitize and only not in (None, ChosenStep.sanitize):
        raise UserError(f"--only {only.value} leaves out what --sanitize asks for.", "Leave one of them out.")
    if share is not None and only == ChosenStep.score:
        raise UserError("--part is for making and inspecting models; all of them are scored.", "Leave it out.")
    language = is_language_recipe(recipe)
    if only != ChosenStep.score:
        steps = [ZooStep.make, ZooStep.inspect, *([ZooStep.sanitize] if sanitize else [])]
        held = _open_zoo(recipe, out, language, nulls, device)
        with make_progress(left=True, quiet=quiet) as shown:
            try:
                wanted = steps if only is None else [ZooStep(only.value)]
                held.work(wanted, report_phases(shown, "models"), share or (1, 1), not drop_models)
            except KeyboardInterrupt:
                shown.stop()
                exit_resumable("Interrupted.")
        if only is not None or share is not None:
            return
    scores, tables = _score_zoo(out, language)
    write_sealed_json(out / "scores.json", scores)
    if as_json:
        print_json(scores)
    elif not quiet:
        for table in tables:
            out_console.print(table)
        out_console.print(Text("Scores: ") + sanitize_line(str(out / "scores.json")))


def _read_part(part: str) -> tuple[int, int] | None:
    """Read `I/N`."""
    if not part:
        return None
    first, slash, last = part.partition("/")
    if (
        len(part) > 20
        or not slash
        or not first.isdecimal()
        or not last.isdecimal()
        or not 1 <= int(first) <= int(last) <= 10_000
    ):
        raise UserError(f"--part should look like 2/8, and is '{part[:40]}'.", "Count parts from 1.")
    return int(first), int(last)


def _open_zoo(recipe: Path, out: Path, language: bool, nulls: int, device: str) -> Any:
    """Return the zoo of a recipe."""
    from cowbird.inspection.inspection import InspectionSettings  # noqa: PLC0415
    from cowbird.inspection.null_models import NullSettings  # noqa: PLC0415
    from cowbird.inspection.zoo.language_recipe import read_language_recipe  # noqa: PLC0415
    from cowbird.inspection.zoo.language_run import LanguageZoo  # noqa: PLC0415
    from cowbird.inspection.zoo.recipe import read_recipe  # noqa: PLC0415
    from cowbird.inspection.zoo.run import Zoo  # noqa: PLC0415
    from cowbird.victims.fit_context import pick_device  # noqa: PLC0415

    if language:
        return LanguageZoo(read_language_recipe(recipe), out, pick_device(device))
    plan = read_recipe(recipe)
    shown = max(50, *(2 * plant.targets[1] for plant in plan.plants))
    settings = InspectionSettings(nulls=NullSettings(count=nulls), shown=shown)
    return Zoo(plan, out, pick_device(device), settings)


def _score_zoo(out: Path, language: bool) -> tuple[dict[str, Any], list[Any]]:
    """Return the scores, and tables of them."""
    from cowbird.inspection.zoo.language_scoring import read_language_zoo, score_language_zoo  # noqa: PLC0415
    from cowbird.inspection.zoo.scoring import read_zoo, score_zoo  # noqa: PLC0415
    from cowbird.report.inspection import make_accusation_table, make_zoo_table  # noqa: PLC0415
    from cowbird.report.language_inspection import make_language_zoo_table  # noqa: PLC0415

    scores = score_language_zoo(read_language_zoo(out)) if language else score_zoo(read_zoo(out))
    first = make_language_zoo_table(scores) if language else make_zoo_table(scores)
    return scores, [first, make_accusation_table(scores)]
