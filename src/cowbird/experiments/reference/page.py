"""The reference of spec files, as one Markdown page made from the code."""

from collections.abc import Iterable
from dataclasses import replace

from cowbird.attacks.triggers import TRIGGERS
from cowbird.experiments.reference.entries import SHIPPED_ORIGIN, describe_entry, list_entries
from cowbird.experiments.reference.fields import FieldReference, TableReference, describe_model
from cowbird.experiments.reference.toml_text import format_value
from cowbird.experiments.spec import Spec
from cowbird.experiments.tasks import list_measures

_PARTS_NOTE = {
    "attack": "`[[attacks]]`: what is planted. The clean model is always measured beside it.",
    "defense": "`[[defenses]]`: what stands against it. Without any, the defense `none` is measured.",
    "victim": "`[[victims]]`: the recommenders.",
    "dataset": "`[dataset]`: where the data comes from.",
    "scenario": "`[[scenarios]]`: what happens between the provider's model and the users. Without any, `direct`.",
}
_PART_TYPES = {
    "dataset": "table, a dataset",
    "victims": "list of tables, each a victim",
    "attacks": "list of tables, each an attack",
    "defenses": "list of tables, each a defense",
    "scenarios": "list of tables, each a scenario",
}
"""What a file holds for the fields of a spec that name plug-ins."""
_INTRODUCTION = """\
# Spec reference

A spec is a TOML file that describes one experiment: a dataset, and the grid of victims, attacks, defenses, scenarios
and seeds. Cowbird runs every combination. A key that is not listed here is an error.

This page is made from the code. `cowbird describe spec` prints it. `cowbird describe attack badrec` prints one part of
it with an example. `cowbird describe spec --schema` prints a JSON schema, with which editors complete specs.

Every attack, defense, victim and scenario also takes a `label`, its name in result rows. Two of a kind need different
labels. A nested table that you write takes the place of the whole default table: a field that you leave out of it gets
the default of that table, listed under Tables below.
"""


def make_spec_page() -> str:
    """Return the reference of spec files as Markdown."""
    lines = [_INTRODUCTION, "## Top level", ""]
    spec = describe_model(Spec)
    lines += _format_table(_name_parts(spec[0]))
    splits = {field.type for field in spec[0].fields}
    shared = {table.name: table for table in spec[1:] if f"table {table.name}" in splits}
    for kind, note in _PARTS_NOTE.items():
        lines += [f"## {kind.capitalize()}s", "", note, ""]
        for entry in list_entries(kind):
            if entry.origin != SHIPPED_ORIGIN:
                continue
            described = describe_entry(kind, entry.name)
            lines += [f"### {kind} `{entry.name}`", "", _escape_cell(entry.summary), ""]
            lines += _format_table(described.tables[0].fields)
            shared |= {table.name: table for table in described.tables[1:]}
    lines += ["## Tables", "", "Tables that stand in the fields above.", ""]
    for name in sorted(shared):
        lines += [
            f"### table `{name}`",
            "",
            _escape_cell(shared[name].meaning),
            "",
            *_format_table(shared[name].fields),
        ]
    lines += ["## Metrics", "", "Values of `metric` in `results.jsonl`.", "", *_list_metrics()]
    lines += ["## Triggers", "", "Values of `kind` in the table `Trigger`, beside `custom`.", "", *_list_families()]
    return "\n".join(lines).rstrip() + "\n"


def _name_parts(spec: TableReference) -> tuple[FieldReference, ...]:
    """Return the fields of a spec with what a file holds, where the spec holds classes."""
    ordered = sorted(spec.fields, key=lambda field: field.type.startswith("table "))
    return tuple(
        replace(field, type=_PART_TYPES[field.name], default=None) if field.name in _PART_TYPES else field
        for field in ordered
    )


def _list_families() -> list[str]:
    """Return the lines that name the shipped triggers, by level and family."""
    families: dict[tuple[str, str], list[str]] = {}
    for name, trigger in TRIGGERS.items():
        families.setdefault((trigger.level, trigger.family), []).append(f"`{name}`")
    rows = [f"| {level} | {family} | {', '.join(names)} |" for (level, family), names in families.items()]
    return ["| level | family | names |", "| --- | --- | --- |", *rows, ""]


def _list_metrics() -> list[str]:
    """Return the lines that name what result rows measure."""
    rows = [f"| `{one.name}` | {one.title} | {one.unit} | {_escape_cell(one.doc)} |" for one in list_measures()]
    return ["| metric | title | unit | meaning |", "| --- | --- | --- | --- |", *rows, ""]


def _format_table(fields: Iterable[FieldReference]) -> list[str]:
    rows = [_format_field(field) for field in fields]
    if not rows:
        return ["It has no fields of its own.", ""]
    return ["| field | type | default | meaning |", "| --- | --- | --- | --- |", *rows, ""]


def _format_field(field: FieldReference) -> str:
    cells = (f"`{field.name}`", field.type, format_default(field, "`"), field.meaning.replace("\n\n", " "))
    return f"| {' | '.join(_escape_cell(cell) for cell in cells)} |"


def format_default(field: FieldReference, quote: str = "") -> str:
    """Return a field's default in words: a value as TOML, `required`, or `none`.

    Args:
        field: The field.
        quote: What stands before and behind a value.
    """
    if field.required:
        return "required"
    if field.default is None:
        return "none"
    return f"{quote}{format_value(field.default)}{quote}" if field.default != {} else "all its defaults"


def _escape_cell(text: str) -> str:
    return text.replace("|", "\\|")
