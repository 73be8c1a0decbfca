"""`cowbird validate`: whether a spec can run, and what would run."""

from typing import Any

from rich.text import Text

from cowbird.cli.options import AllowPluginsOption, JsonOption, ProfileOption, QuietOption, SpecArgument
from cowbird.cli.terminal import out_console, print_json, sanitize_line

VALIDATE_EXAMPLES = ("cowbird validate spec.toml", "cowbird validate badrec --profile quick --json")


def validate(
    spec: SpecArgument,
    profile: ProfileOption = "",
    allow_plugins: AllowPluginsOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check a spec and the data that it names, and tell what would run. Nothing is trained.

    Of large files only the header is read. Exit codes: 0 the spec can run, 2 it can't; the message says why.
    """
    from cowbird.cli.run import read_spec  # noqa: PLC0415
    from cowbird.experiments.reference.plan import describe_run  # noqa: PLC0415

    read = read_spec(spec, None, profile, allow_plugins)
    read.dataset.options.check()
    plan = describe_run(read)
    if as_json:
        print_json(plan)
    elif not quiet:
        _show_plan(plan)


def _show_plan(plan: dict[str, Any]) -> None:
    out_console.print(Text("Valid: ", style="bold green") + sanitize_line(plan["name"]))
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
