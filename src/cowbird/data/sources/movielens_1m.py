"""MovieLens-1M: a million ratings of 3,900 movies by 6,040 users (GroupLens, 2003).

Read from GroupLens' own files (`ratings.dat`, `movies.dat`, `users.dat`, columns separated by `::`, Latin-1, described
in their README), or from RecBole atomic files.
"""

from pathlib import Path

from cowbird.data.sources._ages import bracket
from cowbird.data.sources._events import EventLog
from cowbird.data.sources._files import Blob, from_folder
from cowbird.data.sources._recbole import Columns, atomic_files, read_atomic
from cowbird.data.sources._tables import assemble, keyed, seeded, split
from cowbird.data.sources._text import ID, LINE, Form, TextTable
from cowbird.data.sources.base import Source
from cowbird.data.types import Dataset, Skips


class MovieLens1M(Source):
    """MovieLens-1M, with genres, and with the users' gender, age, occupation and zip code.

    Ages and occupations are the codes of the source (age 1 is under 18, 18 is 18-24, and so on); `age_group` spells
    the brackets out.
    """

    path: Path
    """GroupLens' `ml-1m.zip`, its unpacked folder, or a folder with atomic files."""

    def load(self) -> Dataset:
        """Read the files."""
        if any(self.path.glob("*.inter")):
            return read_atomic("movielens_1m", atomic_files(self.path, None), Columns())
        return _read_grouplens(from_folder(self.path, ["ratings.dat", "movies.dat", "users.dat"]))


def _table(blob: Blob, skips: Skips, *names: str) -> TextTable:
    return TextTable(blob, Form("::", quoted=False, encoding="latin-1", names=names), skips)


def _read_grouplens(blobs: dict[str, Blob]) -> Dataset:
    """Read GroupLens' own files."""
    skips = Skips()
    movies = _table(blobs["movies.dat"], skips, ID, "title", "genres").frames((ID, "title", "genres"))
    columns = [ID, "title", split("genres", "|").alias("categories"), LINE]
    items = keyed((frame.select(columns) for frame in movies), "movies.dat", "item", skips)
    names = (ID, "gender", "age", "occupation", "zip_code")
    users = keyed(_table(blobs["users.dat"], skips, *names).frames(names), "users.dat", "user", skips)
    users = users.with_columns(bracket("age"))
    log = EventLog("ratings.dat", skips, seeded(items))
    names = ("user", "item", "rating", "time")
    for frame in _table(blobs["ratings.dat"], skips, *names).frames(names):
        log.add(frame)
    return assemble("movielens_1m", log, items, users, ("movies.dat", "users.dat"))
