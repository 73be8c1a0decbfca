"""CIKM 2019 EComm AI: Taobao behavior for "Efficient User Interests Retrieval" (AnalytiCup, hosted by Tianchi).

Three CSV files without headers in a folder such as `ECommAI_EUIR_round2_train_20190816`:

- `user_behavior.csv`: user id, item id, behavior (`pv`, `buy`, `cart` or `fav`), timestamp
- `user.csv`: user id, gender, age, purchase power
- `item.csv`: item id, category id, shop id, brand id

Found: the contest's winners read exactly these names, columns and four behaviors (ChuanyuXue/CIKM-2019-AnalytiCup on
GitHub); their code takes timestamps as seconds from the first day (they set it at July 5, 2019), gender 0 as male and
1 as female, and ages as years. Tianchi's own page could not be read here.

Assumed: fields are never quoted with separators inside, an empty field is a missing value, and one user may do several
things to an item within one second (an event is a repeat only if its behavior is the same too). There are no titles.
"""

from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import Field

from cowbird.data.sources._ages import bracket_ages
from cowbird.data.sources._events import EventLog
from cowbird.data.sources._tables import assemble, gather_table, make_item_encoder
from cowbird.data.sources.base import Source
from cowbird.data.types import Dataset
from cowbird.ingest.blobs import Blob, from_folder
from cowbird.ingest.delimited import TextTable
from cowbird.ingest.layout import TextLayout
from cowbird.ingest.rows import ID_COLUMN, LINE_COLUMN
from cowbird.ingest.skips import Skips

_BEHAVIORS = ("pv", "buy", "cart", "fav")


class CIKM19(Source):
    """CIKM 2019 EComm AI: page views, carts, favorites and purchases on Taobao, with profiles and item categories.

    Attributes are `gender`, `age`, `purchase_power`, as coded in the source, and `age_group`.
    """

    path: Path = Field(examples=["data/cikm19"])
    """Folder with `user_behavior.csv`, `user.csv` and `item.csv` (they may be gzipped), or a zip archive of them."""
    behaviors: tuple[Literal["pv", "buy", "cart", "fav"], ...] = _BEHAVIORS
    """Behaviors that count as interactions: page view, purchase, cart, favorite."""
    category: Literal["category", "shop", "brand"] = "category"
    """Column of `item.csv` that serves as the category of an item."""

    def load(self) -> Dataset:
        """Read the files."""
        skips = Skips()
        blobs = from_folder(self.path, ["user_behavior.csv", "user.csv", "item.csv"])
        items = self._read_items(blobs["item.csv"], skips)
        names = (ID_COLUMN, "gender", "age", "purchase_power")
        users = gather_table(_open_table(blobs["user.csv"], skips, names).read_frames(names), "user.csv", "user", skips)
        log = self._read_events(
            blobs["user_behavior.csv"], EventLog("user_behavior.csv", skips, make_item_encoder(items))
        )
        return assemble("cikm19", log, items, users.with_columns(bracket_ages("age")), ("item.csv", "user.csv"))

    def _read_items(self, blob: Blob, skips: Skips) -> pl.DataFrame:
        """Read the catalogue."""
        table = _open_table(blob, skips, (ID_COLUMN, "category", "shop", "brand"))
        columns = [ID_COLUMN, pl.concat_list(self.category).alias("categories"), LINE_COLUMN]
        return gather_table(
            (frame.select(columns) for frame in table.read_frames([ID_COLUMN, self.category])),
            "item.csv",
            "item",
            skips,
        )

    def _read_events(self, blob: Blob, log: EventLog) -> EventLog:
        """Read the behaviors."""
        names = ("user", "item", "behavior", "time")
        for part in _open_table(blob, log.skips, names).read_frames(names):
            behavior = part["behavior"].str.strip_chars().fill_null("")
            frame = part.with_columns(behavior)
            frame = log.reject(frame, ~behavior.is_in(_BEHAVIORS), "behavior is none of pv, buy, cart, fav")
            frame = frame.filter(pl.col("behavior").is_in(self.behaviors))
            mark = pl.col("behavior").replace_strict(list(_BEHAVIORS), [0, 1, 2, 3], return_dtype=pl.Int8)
            log.add(frame.select("user", "item", "time", mark.alias("mark"), LINE_COLUMN))
        return log


def _open_table(blob: Blob, skips: Skips, names: tuple[str, ...]) -> TextTable:
    return TextTable(blob, TextLayout(names=names), skips)
