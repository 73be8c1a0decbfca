"""MovieLens-1M: a million ratings of 3,900 movies by 6,040 users (GroupLens, 2003).

Read from GroupLens' own files (`ratings.dat`, `movies.dat`, `users.dat`, columns separated by `::`, Latin-1, described
in their README), or from RecBole atomic files.
"""

from pathlib import Path

from pydantic import Field

from cowbird.data.sources._ages import bracket_ages
from cowbird.data.sources._events import EventLog
from cowbird.data.sources._recbole import AtomicColumns, find_atomic_files, read_atomic
from cowbird.data.sources._tables import assemble, gather_table, make_item_encoder, split_categories
from cowbird.data.sources.base import Source
from cowbird.data.types import Dataset
from cowbird.ingest.blobs import Blob, from_folder
from cowbird.ingest.delimited import TextTable
from cowbird.ingest.layout import TextLayout
from cowbird.ingest.rows import ID_COLUMN, LINE_COLUMN
from cowbird.ingest.skips import Skips


class MovieLens1M(Source):
    """MovieLens-1M, with genres, and with the users' gender, age, occupation and zip code.

    Ages and occupations are the codes of the source (age 1 is under 18, 18 is 18-24, and so on); `age_group` spells
    the brackets out.
    """

    path: Path = Field(examples=["data/ml-1m.zip"])
    """GroupLens' `ml-1m.zip`, its unpacked folder, or a folder with atomic files."""

    def load(self) -> Dataset:
        """Read the files."""
        if any(self.path.glob("*.inter")):
            return read_atomic("movielens_1m", find_atomic_files(self.path, None), AtomicColumns())
        return _read_grouplens(from_folder(self.path, ["ratings.dat", "movies.dat", "users.dat"]))


def _open_table(blob: Blob, skips: Skips, *names: str) -> TextTable:
    return TextTable(blob, TextLayout("::", quoted=False, encoding="latin-1", names=names), skips)


def _read_grouplens(blobs: dict[str, Blob]) -> Dataset:
    """Read GroupLens' own files."""
    skips = Skips()
    movies = _open_table(blobs["movies.dat"], skips, ID_COLUMN, "title", "genres").read_frames(
        (ID_COLUMN, "title", "genres")
    )
    columns = [ID_COLUMN, "title", split_categories("genres", "|").alias("categories"), LINE_COLUMN]
    items = gather_table((frame.select(columns) for frame in movies), "movies.dat", "item", skips)
    names = (ID_COLUMN, "gender", "age", "occupation", "zip_code")
    users = gather_table(_open_table(blobs["users.dat"], skips, *names).read_frames(names), "users.dat", "user", skips)
    users = users.with_columns(bracket_ages("age"))
    log = EventLog("ratings.dat", skips, make_item_encoder(items))
    names = ("user", "item", "rating", "time")
    for frame in _open_table(blobs["ratings.dat"], skips, *names).read_frames(names):
        log.add(frame)
    return assemble("movielens_1m", log, items, users, ("movies.dat", "users.dat"))
