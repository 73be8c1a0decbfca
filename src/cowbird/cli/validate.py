"""`cowbird validate`: whether a spec can run, and what would run."""

from typing import TYPE_CHECKING, Any

import typer
from rich.text import Text

from cowbird.cli.options import (
    AgentKeyEnvOption,
    AgentUrlOption,
    AllowPluginsOption,
    JsonOption,
    ProfileOption,
    QuietOption,
    SpecArgument,
)
from cowbird.cli.terminal import err_console, out_console, print_json, sanitize_line
from cowbird.errors import ExitCode

if TYPE_CHECKING:
    from rich.console import Console

    from cowbird.experiments.validation import Validation

VALIDATE_EXAMPLES = ("cowbird validate spec.toml", "cowbird validate badrec --profile quick --json")


def validate(
    spec: SpecArgument,
    profile: ProfileOption = "",
    agent_url: AgentUrlOption = None,
    agent_key_env: AgentKeyEnvOption = None,
    allow_plugins: AllowPluginsOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Look for all that would keep a spec from running. Nothing is trained.

    Of each table 1,500,000 rows are read at most; the output says what was checked and what was not.
    Exit codes: 0 no problem was found in what was checked, 2 there are problems, a line each.
    """
    from cowbird.cli.run import read_spec  # noqa: PLC0415
    from cowbird.defenses.p_scanner.triggers.agent_server import set_agent_environment  # noqa: PLC0415
    from cowbird.experiments.reference.shipped_specs import find_spec  # noqa: PLC0415
    from cowbird.experiments.spec import load_dataset  # noqa: PLC0415
    from cowbird.experiments.validation import validate_spec  # noqa: PLC0415

    with set_agent_environment(agent_url, agent_key_env, log=False):
        found = validate_spec(
            lambda: read_spec(spec, None, profile, allow_plugins),
            load_data=lambda: load_dataset(find_spec(spec), profile, allow_plugins),
        )
    if as_json:
        print_json(_make_record(found))
    elif found.problems:
        for problem in found.problems:
            err_console.print(Text("Error: ", style="bold red") + sanitize_line(problem), soft_wrap=True)
        _show_extent(found, err_console, quiet)
    elif not quiet:
        out_console.print(Text("No problem found: ", style="bold") + sanitize_line(found.plan["name"]))
        _show_plan(found.plan)
        _show_extent(found, out_console, quiet)
    if found.problems:
        raise typer.Exit(ExitCode.ERROR)


def _make_record(found: "Validation") -> dict[str, Any]:
    """Return what was found as plain JSON values; keys of the plan stand beside the others."""
    return {
        **found.plan,
        "problems": found.problems,
        "left_out": found.left_out,
        "notices": [str(notice) for notice in found.notices],
        "checked": found.checked,
        "not_checked": found.unchecked,
    }


def _show_plan(plan: dict[str, Any]) -> None:
    for key in ("dataset", "victims", "attacks", "defenses", "scenarios", "seeds"):
        value = plan[key]
        words = value if isinstance(value, str) else ", ".join(map(str, value))
        out_console.print(Text(f"  {key:<10}") + sanitize_line(words), soft_wrap=True)
    out_console.print(
        f"{plan['cells']} cells (victim × seed), each with {plan['combinations']} combinations of an attack (or none), "
        "a defense and a scenario.",
        highlight=False,
        soft_wrap=True,
    )


def _show_extent(found: "Validation", console: "Console", quiet: bool) -> None:
    """Show what a run would do otherwise than expected, and what was checked and what was not."""
    rows = [("note", "cyan", str(notice)) for notice in found.notices]
    rows += [("left out", "yellow", text) for text in found.left_out]
    rows += [("checked", "green", text) for text in found.checked]
    rows += [("not checked", "yellow", text) for text in found.unchecked]
    for label, style, text in () if quiet else rows:
        console.print(Text(f"{label:<13}", style=style) + sanitize_line(text), soft_wrap=True)
