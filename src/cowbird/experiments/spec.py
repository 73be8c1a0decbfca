"""An experiment as a TOML file: one dataset, and the grid victims × attacks × defenses × scenarios × seeds.

A key that is not known is an error, never ignored. The parsed spec is the record of a run: it is written beside the
results, and its hash tells whether a folder may be resumed.
"""

import hashlib
import json
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator, model_validator

from cowbird import plugins
from cowbird.attacks.base import Adaptive
from cowbird.data.sources.base import Source
from cowbird.defenses.none import NoDefense
from cowbird.defenses.titles import TitleDefense
from cowbird.errors import PluginError, UserError
from cowbird.experiments.field_errors import explain_each, explain_errors, is_unknown_key, list_fields
from cowbird.experiments.parts import AttackPart, DatasetPart, DefensePart, VictimPart
from cowbird.experiments.profiles import apply_profile
from cowbird.experiments.scenarios import LABEL_PATTERN, AnyScenario, Direct
from cowbird.experiments.spec_labels import explain_label
from cowbird.experiments.tasks import AnyTask, find_task, list_tasks
from cowbird.files import read_plain_text
from cowbird.metrics.ranking import CUTOFFS
from cowbird.path_hints import suggest_close_paths
from cowbird.plugin_errors import guard_plugins

RESERVED_LABELS = ("clean", "none")
"""Labels no attack may have: they name the clean model in a run's folders and rows."""


def _make_defenses() -> tuple[DefensePart, ...]:
    return (DefensePart(name="none", options=NoDefense()),)


class SplitTables(BaseModel):
    """How each task splits the data: a table for each task, which the task declares."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def _add_tables(base: type[Any], tasks: Iterable[AnyTask], name: str) -> type[Any]:
    """Return a model that has the tables of some tasks as well."""
    fields = {
        task.split_table: (task.split_type, Field(default_factory=task.split_type, description=task.split_doc))
        for task in tasks
        if task.split_table not in base.model_fields
    }
    return create_model(name, __base__=base, __module__=__name__, **cast("dict[str, Any]", fields)) if fields else base


if TYPE_CHECKING:
    ShippedSplitTables = SplitTables
else:
    ShippedSplitTables = _add_tables(SplitTables, list_tasks(), "ShippedSplitTables")


class Spec(ShippedSplitTables):
    """A whole experiment."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(pattern=LABEL_PATTERN)
    """Name of the experiment, in every result row."""
    description: str = ""
    """What it is for, in a sentence."""
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Everything random in a cell follows from its seed."""
    ks: tuple[int, ...] = Field(default=CUTOFFS, min_length=1)
    """Cut-offs of the metrics."""
    dataset: DatasetPart
    """Where the data comes from."""
    victims: tuple[VictimPart, ...] = Field(min_length=1)
    """Recommenders."""
    attacks: tuple[AttackPart, ...] = Field(min_length=1)
    """Attacks; the clean model is always there to compare with."""
    defenses: tuple[DefensePart, ...] = Field(default_factory=_make_defenses, min_length=1)
    """Defenses; by default none."""
    scenarios: tuple[AnyScenario, ...] = Field(default=(Direct(name="direct"),), min_length=1)
    """What happens downstream."""

    @field_validator("ks")
    @classmethod
    def _check_ks(cls, ks: tuple[int, ...]) -> tuple[int, ...]:
        if min(ks) < 1 or len(set(ks)) != len(ks):
            raise ValueError(f"cut-offs must be different whole numbers from 1 up, got {list(ks)}")
        return tuple(sorted(ks))

    @model_validator(mode="after")
    def _check_labels(self) -> "Spec":
        wrong: list[str] = []
        for kind in ("victims", "attacks", "defenses", "scenarios"):
            titles = [part.title() for part in getattr(self, kind)]
            twice = sorted({title for title in titles if titles.count(title) > 1})
            wrong += [f"two {kind} are called {title!r}; give each a label of its own" for title in twice]
        reserved = sorted({part.title() for part in self.attacks}.intersection(RESERVED_LABELS))
        wrong += [f"an attack can't be called {title!r}: that names the clean model" for title in reserved]
        if len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            wrong.append("seeds must differ and be 0 or more")
        for task in dict.fromkeys(find_task(victim.options) for victim in self.victims):
            try:
                task.check_scenarios(self.get_split(task), self.scenarios)
            except ValueError as error:
                wrong.append(str(error))
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def get_split(self, task: AnyTask) -> Any:
        """Return how a task splits the data."""
        return getattr(self, task.split_table)

    @model_validator(mode="after")
    def _check_known_defenses(self) -> "Spec":
        """Check that what an attack knows is a defense of the spec that it can have a copy of."""
        copied = {
            part.title(): isinstance(part.options, TitleDefense) and not part.options.asks_victim
            for part in self.defenses
        }
        for part in self.attacks:
            if not isinstance(part.options, Adaptive):
                continue
            if part.options.found is not None:
                raise ValueError(f"attack {part.title()!r}: 'found' is what its search comes to, and can't be given")
            if not copied.get(part.options.knows):
                what = "can't be copied" if part.options.knows in copied else "is not there"
                labels = ", ".join(repr(label) for label, can in copied.items() if can) or "none"
                raise ValueError(
                    f"attack {part.title()!r} knows the defense {part.options.knows!r}, which {what}; "
                    f"defenses of the spec that read titles alone: {labels}"
                )
        return self

    def to_record(self) -> dict[str, Any]:
        """Return the spec as plain JSON values."""
        return self.model_dump(mode="json")

    def digest(self) -> str:
        """Return the SHA-256 of the record."""
        return hashlib.sha256(json.dumps(self.to_record(), sort_keys=True).encode()).hexdigest()


class SpecError(UserError):
    """All that is wrong with a spec.

    Args:
        message: All of it, in one text.
        hint: What to do about it.
        problems: Each of it alone.
    """

    def __init__(self, message: str, hint: str = "", problems: Sequence[UserError] = ()) -> None:
        super().__init__(message, hint)
        self.problems = tuple(problems)

    def __reduce__(self) -> Any:
        """Travel whole between processes."""
        return type(self), (self.message, self.hint, self.problems)


def list_problems(error: UserError) -> list[UserError]:
    """Return what an error comes to, one by one."""
    inside = error.problems if isinstance(error, SpecError) else ()
    return [problem for each in inside for problem in list_problems(each)] or [error]


def _join_problems(problems: Sequence[UserError]) -> UserError:
    """Return one problem as it is, and several as one error."""
    if len(problems) == 1:
        return problems[0]
    hints = dict.fromkeys(problem.hint for problem in problems if problem.hint)
    return SpecError(" ".join(problem.message for problem in problems), " ".join(hints), problems)


MAX_SPEC_BYTES = 1 << 24
"""Largest spec file that is read."""
SINGLE_PARTS, LISTED_PARTS = {"dataset": "dataset"}, {"victims": "victim", "attacks": "attack", "defenses": "defense"}


def _parse_part(kind: str, where: str, table: object, allow_plugins: bool) -> dict[str, Any]:
    if not isinstance(table, dict) or not isinstance(table.get("name"), str):  # pyright: ignore[reportUnknownMemberType]
        raise UserError(f"{where} must be a table with a name.", f"Known: {', '.join(plugins.list_plugins(kind))}.")
    fields = dict(cast("dict[str, Any]", table))
    name, label = str(fields.pop("name")), fields.pop("label", "")
    try:
        model = plugins.find_plugin(kind, name, allow_plugins)
    except UserError as error:
        meant = explain_label(kind, name)
        if isinstance(error, PluginError) or not (fields or meant):
            raise
        unread = f"Not checked until it is found: {', '.join(map(str, fields))}." if fields else ""
        hints = (meant, error.hint, unread)
        raise UserError(f"{where}: {error.message}", " ".join(filter(None, hints))) from None
    options = _validate(model, fields, f"{where} ({name})")
    return {"name": name, "label": label, "options": options}


def _validate(model: type[BaseModel], fields: dict[str, Any], where: str) -> Any:
    with guard_plugins():  # validators of somebody else's may raise anything
        try:
            return model.model_validate(fields)
        except ValidationError as error:
            problems = [
                UserError(f"{where}: {words}.", list_fields(model, [problem]) if is_unknown_key(problem) else "")
                for problem, words in explain_each(error)
            ]
            hint = list_fields(model, error.errors(include_url=False))
            raise SpecError(f"{where}: {explain_errors(error)}", hint, problems) from None


def parse_spec(table: dict[str, Any], where: str = "spec", allow_plugins: bool = False) -> Spec:
    """Build a spec from the tables of a TOML file.

    Args:
        table: The tables.
        where: What to call the spec in errors.
        allow_plugins: Whether dotted paths in it may be imported, which runs their code.

    Raises:
        UserError: If a key is unknown or missing or a value does not fit; all that is wrong, and where.
    """
    fields, problems, failed, tasks = dict(table), list[UserError](), set[str](), list[AnyTask]()

    def parse(key: str, kind: str, place: str, part: object) -> Iterator[dict[str, Any]]:
        try:
            found = _parse_part(kind, f"{where}: {place}", part, allow_plugins)
            if kind == "victim":
                tasks.append(find_task(found["options"]))
            yield found
        except UserError as error:
            problems.append(error)
            failed.add(key)

    for key, kind in SINGLE_PARTS.items():
        if key in fields:
            fields[key] = next(parse(key, kind, f"[{key}]", fields[key]), None)
    for key, kind in LISTED_PARTS.items():
        entries = fields.get(key, [])
        if not isinstance(entries, list):
            problems.append(UserError(f"{where}: '{key}' must be a list of tables.", f"Write [[{key}]] before each."))
            fields[key] = []
            failed.add(key)
        elif key in fields:
            numbered = enumerate(cast("list[object]", entries), 1)
            fields[key] = [p for nth, part in numbered for p in parse(key, kind, f"[[{key}]] number {nth}", part)]
    try:
        spec = _validate(_add_tables(Spec, tasks, "Spec"), fields, where)
    except SpecError as error:
        if not problems:
            raise
        # What is missing since it could not be read is told already.
        gone = tuple(f"{where}: {key}: " for key in failed)
        problems += [problem for problem in error.problems if not problem.message.startswith(gone)]
    else:
        if not problems:
            return spec
    raise _join_problems(problems)


def load_spec(path: Path, seeds: tuple[int, ...] | None = None, profile: str = "", allow_plugins: bool = False) -> Spec:
    """Read a spec file.

    Args:
        path: The TOML file.
        seeds: Seeds to use instead of the file's.
        profile: Which of the file's profiles to use; empty for none. See `profiles.apply_profile`.
        allow_plugins: Whether dotted paths in it may be imported, which runs their code.

    Raises:
        UserError: If the file is missing, not TOML, or not a spec.
    """
    table = _read_table(path, profile)
    if seeds is not None:
        table["seeds"] = list(seeds)
    return parse_spec(table, str(path), allow_plugins)


def load_dataset(path: Path, profile: str = "", allow_plugins: bool = False) -> Source:
    """Read the dataset of a spec file, whatever is wrong with the rest.

    Args:
        path: The TOML file; it and others as in `load_spec`.
        profile: Which of the file's profiles to use.
        allow_plugins: Whether dotted paths in it may be imported.

    Raises:
        UserError: If the file can't be read, or holds no dataset that can be.
    """
    table = _read_table(path, profile).get("dataset")
    return _parse_part("dataset", f"{path}: [dataset]", table, allow_plugins)["options"]


def _read_table(path: Path, profile: str) -> dict[str, Any]:
    """Read a spec file, as one of its profiles changes it."""
    try:
        table = tomllib.loads(read_plain_text(path, MAX_SPEC_BYTES, shell=True))
    except FileNotFoundError:
        close = suggest_close_paths(path, ".toml")
        hint = close or "Give the path of a TOML file, or the name of a spec that ships (cowbird list specs)."
        raise UserError(f"There is no spec '{path}'.", hint) from None
    except OSError as error:
        raise UserError(
            f"The spec '{path}' can't be read: {error.strerror}.", "Give the path of a TOML file."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"The spec '{path}' is not TOML: {error}.", "Compare it with a shipped one.") from None
    except RecursionError:
        raise UserError(f"The spec '{path}' nests its values too deeply.", "Compare it with a shipped one.") from None
    return apply_profile(table, profile, str(path))
