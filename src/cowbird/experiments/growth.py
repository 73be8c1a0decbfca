"""A run's folder is bound to one spec, which may grow: new seeds, victims, attacks, defenses and scenarios.

What is there already is reused, and only what is new runs. A change that would make kept work wrong is refused: another
dataset, another split, or other fields under a label that was there before.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from cowbird.errors import UserError
from cowbird.experiments.cell import find_undefended_label
from cowbird.experiments.spec import Spec
from cowbird.experiments.tasks import find_task
from cowbird.files import PARTIAL_SUFFIX, read_plain_text, write_text
from cowbird.locks import LOCK_FILE

GROWING_PARTS = {"victims": "victim", "attacks": "attack", "defenses": "defense", "scenarios": "scenario"}
"""Lists that may have new entries, and what one of them is called."""
FREE_KEYS = ("description",)
"""What may change, since nothing follows from it."""
SPEC_FILE = "spec.json"
"""The file of a run's folder that says which spec it is bound to."""
MAX_SHOWN_DIFFERENCES = 3
"""How many differences an error names."""


def check_free(out: Path) -> None:
    """Check that a folder is a run's, or is free to become one's; nothing is written.

    Raises:
        UserError: If it holds something else.
    """
    try:
        names = {path.name for path in out.iterdir()} if out.is_dir() else set[str]()
        foreign = [name for name in names if name != LOCK_FILE and not name.endswith(PARTIAL_SUFFIX)]
        taken = out.exists() and (not out.is_dir() or (SPEC_FILE not in names and bool(foreign)))
    except OSError as error:
        raise UserError(f"'{out}' can't be used: {error.strerror}.", "Choose another folder with --out.") from None
    if taken:
        raise UserError(f"'{out}' is not an empty folder.", "Choose a new folder with --out.")


def bind_folder(spec: Spec, out: Path, resume: bool) -> None:
    """Bind a folder to a spec, or to what the spec has grown to.

    Raises:
        UserError: If the folder holds something and `resume` is off, or holds work that the spec makes wrong.
    """
    record = out / SPEC_FILE
    check_free(out)
    if record.exists():
        before = _check_record(spec, out)
        if not resume:
            raise UserError(f"'{out}' holds this run already.", "Add --resume to go on, or choose a new folder.")
        if before == spec.to_record():
            return
    write_text(record, json.dumps({"sha256": spec.digest(), "spec": spec.to_record()}, indent=1))


def check_bound(spec: Spec, out: Path) -> None:
    """Check that a folder is free, or bound to a spec or what it has grown from; nothing is written.

    Raises:
        UserError: If it is not.
    """
    check_free(out)
    if (out / SPEC_FILE).exists():
        _check_record(spec, out)


def _check_record(spec: Spec, out: Path) -> dict[str, Any]:
    """Return the spec that a folder is bound to, after a look at whether its work is good for another one."""
    before = _read_record(out / SPEC_FILE)
    differences = list(find_differences(before, spec))
    if differences:
        shown = "; ".join(differences[:MAX_SHOWN_DIFFERENCES])
        more = len(differences) - MAX_SHOWN_DIFFERENCES
        raise UserError(
            f"'{out}' holds the run of another spec: {shown}{f'; and {more} more' if more > 0 else ''}.",
            "Choose a new folder with --out. A run can grow by seeds, victims, attacks, defenses and scenarios.",
        )
    return before


def _read_record(path: Path) -> dict[str, Any]:
    """Return the spec that a folder was bound to."""
    try:
        held = json.loads(read_plain_text(path))
        record = dict(held["spec"])
        if held["sha256"] != hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest():
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"'{path}' is damaged.", "Choose a new folder with --out.") from None
    return record


def find_differences(before: Mapping[str, Any], spec: Spec) -> Iterator[str]:
    """Yield what of a spec makes the kept work of another wrong, in words.

    Args:
        before: Record of the spec that the kept work is of.
        spec: The spec.
    """
    after = spec.to_record()
    for key, value in before.items():
        if key == "seeds":
            gone = [str(seed) for seed in value if seed not in spec.seeds]
            if gone:
                yield f"its seed{'s' * (len(gone) > 1)} {', '.join(gone)} would be left out"
        elif key == "ks":
            if not all(find_task(victim.options).covers_cutoffs(value, spec.ks) for victim in spec.victims):
                yield f"ks was {value}, and is {list(spec.ks)}"
        elif key in GROWING_PARTS:
            yield from _compare_parts(GROWING_PARTS[key], value, after[key])
        elif key not in FREE_KEYS:
            yield from _compare_values(key, value, after.get(key))
    yield from _check_undefended(before, spec)


def _compare_parts(kind: str, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> Iterator[str]:
    """Yield what differs in entries of a list, which are known by their labels."""
    known = {_get_title(part): part for part in after}
    for part in before:
        title = _get_title(part)
        if title not in known:
            yield f"its {kind} {title} would be left out"
            continue
        without = [{key: value for key, value in one.items() if key != "label"} for one in (part, known[title])]
        yield from _compare_values(f"{kind} {title}", *without)


def _compare_values(place: str, before: Any, after: Any) -> Iterator[str]:
    """Yield the fields in which two values differ, with what they were and are."""
    if before == after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        old, new = cast("dict[str, Any]", before), cast("dict[str, Any]", after)
        for key in {**old, **new}:
            inside = place if key == "options" else f"{place}.{key}"
            yield from _compare_values(inside, old.get(key), new.get(key))
    else:
        yield f"{place} was {_show_value(before)}, and is {_show_value(after)}"


def _check_undefended(before: Mapping[str, Any], spec: Spec) -> Iterator[str]:
    """Yield what is wrong if a new defense has the label under which models without a defense are kept."""
    titles = {_get_title(part) for part in before["defenses"]}
    if "none" not in titles and find_undefended_label(spec) != "none":
        new = {part.title() for part in spec.defenses} - titles
        if "none" in new:
            yield "a new defense is called 'none', which names models without a defense"


def _get_title(part: Mapping[str, Any]) -> str:
    return str(part.get("label") or part.get("name"))


def _show_value(value: Any) -> str:
    return "not there" if value is None else json.dumps(value)[:60]
