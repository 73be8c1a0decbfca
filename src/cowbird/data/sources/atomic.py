"""Data sets as RecBole atomic files: a folder with `NAME.inter`, and optionally `NAME.item` and `NAME.user`.

RecBole's documentation describes them under "Atomic Files"; most public recommendation data sets exist in this form.
"""

from pathlib import Path

from pydantic import Field

from cowbird.data.sources._recbole import AtomicColumns, find_atomic_files, list_atomic_checks, read_atomic
from cowbird.data.sources.base import Source, catch_problem
from cowbird.data.types import Dataset
from cowbird.errors import UserError
from cowbird.ingest.places import refuse_changes


class Atomic(Source):
    """RecBole atomic files in a folder.

    Every column of the `.user` file becomes an attribute of the users; ages in years also give `age_group`.
    """

    path: Path = Field(examples=["data/my-dataset"])
    """Folder with the files."""
    stem: str | None = None
    """Name of the files without their ending; may be left out if the folder holds one `.inter` file."""
    user_column: str = "user_id"
    """Column of user ids, in the `.inter` and the `.user` file."""
    item_column: str = "item_id"
    """Column of item ids, in the `.inter` and the `.item` file."""
    time_column: str | None = "timestamp"
    """Column of times, if the file has it; `None` keeps the order of the file."""
    rating_column: str | None = "rating"
    """Column of ratings, if the file has it."""
    title_column: str | None = None
    """Column of titles; by default the first of `movie_title`, `title`, `name` and `item_name`."""
    category_column: str | None = None
    """Column of categories; by default the first of `genre`, `genres`, `class`, `categories`, `category`, `tags`."""

    def load(self) -> Dataset:
        """Read the files."""
        blobs = find_atomic_files(self.path, self.stem)
        with refuse_changes(*(self.path / blob.name for blob in blobs.values())):
            return read_atomic(blobs["inter"].name.removesuffix(".inter"), blobs, self._name_columns())

    def find_problems(self) -> list[UserError]:
        """Return what keeps `load` from reading each of the files; see `Source.find_problems`."""
        try:
            blobs = find_atomic_files(self.path, self.stem)
        except UserError as error:
            return [error]
        checks = list_atomic_checks(blobs, self._name_columns())
        return [problem for check in checks for problem in catch_problem(check)]

    def _name_columns(self) -> AtomicColumns:
        return AtomicColumns(
            self.user_column,
            self.item_column,
            self.time_column,
            self.rating_column,
            self.title_column,
            self.category_column,
        )
