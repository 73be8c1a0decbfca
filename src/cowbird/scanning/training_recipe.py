"""The recipe of a tagger: a TOML file that names lists of titles, what is taught with them, and what is asked about.

Paths are told from the folder of the recipe. A title of a held-out list is never learned from, and one that stands in
several lists is left out of all of them, so that no list says less of another than it seems to.
"""

import tomllib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cowbird.defenses.p_scanner.small_tagger import TaggerKind
from cowbird.defenses.p_scanner.training.small_tagger_training import SmallTaggerRecipe
from cowbird.defenses.p_scanner.training.tagger_examples import TaggerRecipe
from cowbird.errors import UserError
from cowbird.faults import raise_outage
from cowbird.files import hash_texts, read_plain_text
from cowbird.scanning.scan import load_table_titles
from cowbird.scanning.unread import UnreadRows
from cowbird.text import count_things

MAX_RECIPE_BYTES = 1 << 20
RECIPE_HINT = "Name a recipe: cowbird train-scanner RECIPE.toml."
"""What to do where there is none."""
ListName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]{0,60}$")]


class TitleList(BaseModel):
    """A list of titles that are taken for clean."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    path: Path
    """The file: any that `cowbird scan` reads."""
    text_column: str = "title"
    """Its column of titles."""
    source: str = Field(default="", max_length=400)
    """Where it is from, for the model card."""
    license: str = Field(default="", max_length=200)
    """Its terms, for the model card."""
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    """Hash of the titles that are learned from, as a tagger's record has it (`titles_sha256`): another list is refused.
    Empty takes any."""
    taught: bool = True
    """Whether it is learned from. One that is not is drawn and counts nothing: so a tagger can be made again that was
    trained beside others on one stream of examples."""


class ScannerRecipe(BaseModel):
    """What a tagger is made of, what it learns from, and what it is asked about at the end."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    kind: TaggerKind
    """`small`, a small network; or `llm`, adapters of a language model."""
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    """Decides all that is random."""
    words: Path | None = None
    """A file of plain words, one a line, that a small tagger's triggers are made of; `None` takes the embedded language
    model's vocabulary."""
    lists: dict[ListName, TitleList] = Field(min_length=1)
    """Lists that are learned from, by name."""
    held_out: dict[ListName, TitleList] = Field(default_factory=dict)
    """Lists that the tagger is asked about at the end, by name; nothing of them is learned."""
    small: SmallTaggerRecipe = SmallTaggerRecipe()
    """Sizes, steps, learning rate and families of a small tagger."""
    llm: TaggerRecipe = TaggerRecipe()
    """Language model, layers, steps, learning rate and families of the other kind."""

    @model_validator(mode="after")
    def _check_lists(self) -> Self:
        both = sorted(self.lists.keys() & self.held_out.keys())
        if both:
            raise ValueError(f"{', '.join(both)} can't be both learned from and held out")
        unused: Literal["small", "llm"] = "llm" if self.kind == "small" else "small"
        if unused in self.model_fields_set:
            raise ValueError(f"the table '{unused}' is for kind = '{unused}'")
        if self.kind == "llm" and self.words is not None:
            raise ValueError("words are for kind = 'small'; the other kind takes its language model's")
        if not any(each.taught for each in self.lists.values()):
            raise ValueError("no list is learned from")
        return self


class RecipeTitles(BaseModel):
    """The titles that a recipe names; all different, none empty."""

    model_config = ConfigDict(frozen=True)

    lists: dict[str, list[str]]
    """Those that are drawn, by list."""
    held_out: dict[str, list[str]]
    """Those that are asked about, by list."""
    unread: dict[str, tuple[UnreadRows, ...]] = {}
    """Rows that could not be read, by list; only lists that have some."""


def read_training_recipe(path: Path) -> ScannerRecipe:
    """Read a recipe; paths in it are made absolute.

    Raises:
        UserError: If it can't be read or is no TOML.
        ValidationError: If a field does not fit.
    """
    try:
        table = tomllib.loads(read_plain_text(path, MAX_RECIPE_BYTES))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path.name} should be TOML, and is not: {error}.", "Mend that line.") from None
    except FileNotFoundError:
        raise UserError(f"There is no file '{path}'.", RECIPE_HINT) from None
    except OSError as error:
        raise_outage(error, f"'{path}' can't be read")
        reason = error.strerror or str(error)
        raise UserError(
            f"'{path}' should be a recipe, a TOML file, and can't be read: {reason}.", RECIPE_HINT
        ) from None
    found, folder = ScannerRecipe.model_validate(table), path.resolve().parent

    def place(lists: Mapping[str, TitleList]) -> dict[str, TitleList]:
        return {name: each.model_copy(update={"path": folder / each.path}) for name, each in lists.items()}

    words = None if found.words is None else folder / found.words
    return found.model_copy(update={"lists": place(found.lists), "held_out": place(found.held_out), "words": words})


def load_training_titles(recipe: ScannerRecipe) -> RecipeTitles:
    """Read the lists of a recipe.

    Raises:
        UserError: If one can't be read, nothing of it is left to learn from, or the recipe names the hash of another.
    """
    read = {name: _read_list(each) for name, each in (recipe.held_out | recipe.lists).items()}
    held_out = {name: read[name][0] for name in recipe.held_out}
    hidden = {title for titles in held_out.values() for title in titles}
    lists = {name: read[name][0] for name in recipe.lists}
    often = Counter(title for titles in lists.values() for title in titles)
    lists = {
        name: [title for title in titles if often[title] == 1 and title not in hidden] for name, titles in lists.items()
    }
    empty = [name for name, titles in lists.items() if not titles]
    if empty:
        raise UserError(
            f"No title of the list '{empty[0]}' is left: all stand in other lists or in those that are held out.",
            "Leave the list out, or the other one.",
        )
    _check_hashes(recipe.lists, lists)
    _check_hashes(recipe.held_out, held_out)
    unread = {name: read[name][1] for name in (*lists, *held_out) if read[name][1]}
    return RecipeTitles(lists=lists, held_out=held_out, unread=unread)


def _check_hashes(wanted: Mapping[str, TitleList], titles: Mapping[str, list[str]]) -> None:
    """Check that lists are those whose hashes a recipe names."""
    found = {name: hash_texts(titles[name]) for name, each in wanted.items() if each.sha256}
    other = [name for name, digest in found.items() if digest != wanted[name].sha256]
    if other:
        first, many = other[0], count_things(len(titles[other[0]]), "title")
        more = f" Neither are these: {', '.join(other[1:])}." if len(other) > 1 else ""
        raise UserError(
            f"The list '{first}' is not the one that the recipe names: {many} with the hash {found[first]}, and "
            f"{wanted[first].sha256} was expected.{more}",
            "Get the list that the recipe names, or leave 'sha256' out to learn from the one that is there.",
        )


def _read_list(each: TitleList) -> tuple[list[str], tuple[UnreadRows, ...]]:
    titles, unread = load_table_titles(each.path, each.text_column)
    return list(dict.fromkeys(title for title in titles if title.strip())), unread
