"""`cowbird describe`: the fields of whatever a spec may name, with an example; and the whole reference of specs."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from cowbird.cli.options import AllowPluginsOption, JsonOption
from cowbird.cli.terminal import out_console, print_json, print_plain, sanitize_line
from cowbird.errors import UserError

if TYPE_CHECKING:
    from cowbird.experiments.reference.entries import Entry
    from cowbird.experiments.reference.fields import TableReference

DESCRIBE_EXAMPLES = (
    "cowbird describe attack badrec",
    "cowbird describe victim tallrec --json",
    "cowbird describe spec --schema > cowbird.schema.json",
)


class DescribedKind(StrEnum):
    """What `cowbird describe` can describe."""

    attack = "attack"
    defense = "defense"
    victim = "victim"
    dataset = "dataset"
    scenario = "scenario"
    trigger = "trigger"
    metric = "metric"
    spec = "spec"


def describe(
    kind: Annotated[DescribedKind, typer.Argument(help="What it is.")],
    name: Annotated[
        str | None, typer.Argument(help="Its name, as in cowbird list. May be left out for spec: then all is told.")
    ] = None,
    allow_plugins: AllowPluginsOption = False,
    as_json: JsonOption = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="For spec: print the JSON schema, with which editors complete specs.")
    ] = False,
) -> None:
    """Tell every field of what a spec may name: type, default, meaning; and an example that can be copied."""
    if schema and (kind != DescribedKind.spec or name is not None):
        raise UserError("--schema is for the whole spec.", "Write cowbird describe spec --schema.")
    if name is None:
        _describe_spec(kind, as_json, schema)
        return
    from cowbird.experiments.reference.entries import describe_entry  # noqa: PLC0415

    entry = describe_entry(kind, name, allow_plugins)
    if as_json:
        print_json(entry.to_record())
    else:
        _show_entry(entry)


def _describe_spec(kind: DescribedKind, as_json: bool, schema: bool) -> None:
    """Print the reference of specs: a page, its tables as JSON, or the schema."""
    if kind != DescribedKind.spec:
        raise UserError(
            f"Which {kind} is not said.", f"Add its name: cowbird list {kind}s lists them. Or: cowbird describe spec."
        )
    if schema:
        from cowbird.experiments.reference.schema import make_spec_schema  # noqa: PLC0415

        print_json(make_spec_schema())
        return
    from cowbird.experiments.reference.fields import describe_model  # noqa: PLC0415
    from cowbird.experiments.reference.page import make_spec_page  # noqa: PLC0415
    from cowbird.experiments.spec import Spec  # noqa: PLC0415

    if as_json:
        print_json([table.to_record() for table in describe_model(Spec)])
    elif out_console.is_terminal:
        from rich.markdown import Markdown  # noqa: PLC0415

        out_console.print(Markdown(make_spec_page()))
    else:
        print_plain(make_spec_page())


def _show_entry(entry: "Entry") -> None:
    heading = sanitize_line(f"{entry.kind} {entry.name}")
    heading.stylize("bold")
    out_console.print(heading + Text(" from ") + sanitize_line(entry.origin))
    out_console.print(sanitize_line(entry.summary))
    for nth, table in enumerate(entry.tables):
        title = "Fields" if nth == 0 else f"Fields of the table {table.name}"
        out_console.print(_make_field_table(title, table) if table.fields else Text("\nIt has no fields."))
    if entry.example:
        out_console.print(
            Text("\nExample, with the defaults:" if entry.kind != "spec" else "\nThe file:", style="bold")
        )
        for line in entry.example.splitlines():
            out_console.print(sanitize_line(line), soft_wrap=True)
    if entry.text:
        out_console.print(Text("\nBackground", style="bold"))
        for paragraph in entry.text.split("\n\n"):
            out_console.print(sanitize_line(paragraph))


def _make_field_table(title: str, reference: "TableReference") -> Table:
    from cowbird.experiments.reference.page import format_default  # noqa: PLC0415

    table = Table(
        title=f"\n{title}", title_justify="left", title_style="bold", box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for name, widest in (("field", 24), ("type", 18), ("default", 16), ("meaning", None)):
        table.add_column(name, overflow="fold", max_width=widest)
    for field in reference.fields:
        table.add_row(
            Text(field.name, style="bold"),
            sanitize_line(field.type),
            sanitize_line(format_default(field)),
            sanitize_line(" ".join(field.meaning.split())),
        )
    return table
