"""MovieLens-100K: 100,000 ratings of 1,682 movies by 943 users (GroupLens, 1998).

Read from RecBole's wheel, which `cowbird assets` fetches, from GroupLens' own files (`u.data`, `u.item`,
`u.user` and `u.genre`, Latin-1, described in their README), or from RecBole atomic files. GroupLens titles end in the
year, `Toy Story (1995)`; the atomic files hold `Toy Story`.
"""

from pathlib import Path

import polars as pl

from cowbird.assets import ASSETS, find_file
from cowbird.data.sources._ages import bracket_ages
from cowbird.data.sources._events import EventLog
from cowbird.data.sources._recbole import AtomicColumns, find_atomic_files, read_atomic
from cowbird.data.sources._tables import assemble, gather_table, make_item_encoder
from cowbird.data.sources.base import Source
from cowbird.data.types import Dataset
from cowbird.errors import UserError
from cowbird.ingest.blobs import Blob, from_file, from_folder
from cowbird.ingest.delimited import TextTable
from cowbird.ingest.layout import TextLayout
from cowbird.ingest.rows import ID_COLUMN, LINE_COLUMN
from cowbird.ingest.skips import Skips


class MovieLens100K(Source):
    """MovieLens-100K, with genres, and with the users' age, gender, occupation and zip code.

    Users also get `age_group`, the age brackets of MovieLens-1M.
    """

    path: Path | None = None
    """GroupLens' `ml-100k.zip`, its unpacked folder, or a folder with atomic files; by default the asset of
    that name."""

    def load(self) -> Dataset:
        """Read the files."""
        if self.path is None:
            return read_atomic("movielens_100k", _find_asset(), AtomicColumns(title="movie_title", category="class"))
        if any(self.path.glob("*.inter")):
            return read_atomic("movielens_100k", find_atomic_files(self.path, None), AtomicColumns())
        return _read_grouplens(from_folder(self.path, ["u.data", "u.item", "u.user", "u.genre"]))


def _find_asset() -> dict[str, Blob]:
    """Find the atomic files of the asset.

    Raises:
        UserError: If it is not here.
    """
    ends = [end for each in ASSETS["movielens_100k"].files.values() for end in each]
    try:
        return {Path(end).suffix[1:]: from_file(find_file("movielens_100k", end)) for end in ends}
    except UserError as error:
        raise UserError(error.message, f"{error.hint} Or set 'path' to ml-100k.zip from GroupLens.") from None


def _read_grouplens(blobs: dict[str, Blob]) -> Dataset:
    """Read GroupLens' own files."""
    skips = Skips()
    genres = _read_genres(blobs["u.genre"], skips)
    items = gather_table(_read_items(blobs["u.item"], genres, skips), "u.item", "item", skips)
    form = TextLayout(
        "|", quoted=False, encoding="latin-1", names=(ID_COLUMN, "age", "gender", "occupation", "zip_code")
    )
    users = gather_table(TextTable(blobs["u.user"], form, skips).read_frames(form.names or ()), "u.user", "user", skips)
    log = EventLog("u.data", skips, make_item_encoder(items))
    form = TextLayout("\t", quoted=False, encoding="latin-1", names=("user", "item", "rating", "time"))
    for frame in TextTable(blobs["u.data"], form, skips).read_frames(form.names or ()):
        log.add(frame)
    return assemble("movielens_100k", log, items, users.with_columns(bracket_ages("age")), ("u.item", "u.user"))


def _read_genres(blob: Blob, skips: Skips) -> list[str]:
    """Return the genres in the order of their numbers."""
    form = TextLayout("|", quoted=False, encoding="latin-1", names=("genre", "number"))
    frame = pl.concat(TextTable(blob, form, skips).read_frames(("genre", "number")))
    number = frame["number"].str.strip_chars().cast(pl.Int32, strict=False)
    if frame["genre"].null_count() or number.sort().to_list() != list(range(frame.height)):
        raise UserError(
            "u.genre should list genres as 'Name|number', numbered from 0, and it doesn't.", "Check the file."
        )
    return frame["genre"].gather(number.arg_sort()).to_list()


def _read_items(blob: Blob, genres: list[str], skips: Skips) -> list[pl.DataFrame]:
    """Read the movies; each genre has a column with 1 where the movie belongs to it."""
    flags = [f"genre {number}" for number in range(len(genres))]
    names = (ID_COLUMN, "title", "release", "video release", "url", *flags)
    table = TextTable(blob, TextLayout("|", quoted=False, encoding="latin-1", names=names), skips)
    members = [
        pl.when(pl.col(flag).str.strip_chars() == "1").then(pl.lit(genre))
        for flag, genre in zip(flags, genres, strict=True)
    ]
    chosen = pl.concat_list(members).list.drop_nulls().alias("categories")
    return [
        frame.select(ID_COLUMN, "title", chosen, LINE_COLUMN)
        for frame in table.read_frames((ID_COLUMN, "title", *flags))
    ]
