"""Ali_Display_Ad_Click: Taobao's display advertising log (Alibaba, Tianchi data set 56).

Four CSV files with headers, as Tianchi publishes them:

- `raw_sample.csv` (26.6 million impressions over 8 days): `user,time_stamp,adgroup_id,pid,nonclk,clk`
- `ad_feature.csv` (846,811 ads): `adgroup_id,cate_id,campaign_id,customer,brand,price`, `NULL` where missing
- `user_profile.csv` (1.06 million users): `userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,`
  `shopping_level,occupation,new_user_class_level` (the last name ends in a space there); empty where missing
- `behavior_log.csv` (723 million actions over 22 days): `user,time_stamp,btag,cate,brand`, `btag` one of `pv`, `cart`,
  `fav` and `buy`

There are no titles. The columns were checked against the description in PaddleRec's copy of the data set.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import Field

from cowbird.data.sources._events import EventLog
from cowbird.data.sources._tables import assemble, gather_table, make_item_encoder
from cowbird.data.sources.base import Source
from cowbird.data.types import Dataset
from cowbird.ingest.blobs import Blob, from_folder
from cowbird.ingest.delimited import TextTable
from cowbird.ingest.layout import TextLayout
from cowbird.ingest.rows import ID_COLUMN, LINE_COLUMN
from cowbird.ingest.skips import Skips

_BEHAVIORS = ("pv", "cart", "fav", "buy")


class AliEC(Source):
    """Alibaba's Ali_Display_Ad_Click: clicked ads with their categories, and user profiles.

    With `events = "clicks"` items are ads. The behavior log names no ads: with `events = "behaviors"` an item is a
    pair of category and brand, `CATE/BRAND`, the finest thing that log tells, and its category is `CATE`. The whole
    log takes some 20 GB of memory; choose `behaviors` to keep a part of it.
    """

    path: Path = Field(examples=["data/taobao"])
    """Folder with the CSV files (they may be gzipped), or a zip archive of them."""
    events: Literal["clicks", "impressions", "behaviors"] = "clicks"
    """What counts as an interaction: a clicked ad, an ad shown, or an action of the behavior log."""
    behaviors: tuple[Literal["pv", "cart", "fav", "buy"], ...] = _BEHAVIORS
    """Actions of the behavior log to keep: page view, cart, favorite, purchase."""
    category: Literal["cate_id", "campaign_id", "customer", "brand"] = "cate_id"
    """Column of `ad_feature.csv` that serves as the category of an ad."""

    def load(self) -> Dataset:
        """Read the files."""
        skips = Skips()
        if self.events == "behaviors":
            blobs = from_folder(self.path, ["behavior_log.csv", "user_profile.csv"])
            log = self._read_behaviors(blobs["behavior_log.csv"], skips)
            items = _make_catalog(log)
        else:
            blobs = from_folder(self.path, ["raw_sample.csv", "ad_feature.csv", "user_profile.csv"])
            items = gather_table(self._read_ads(blobs["ad_feature.csv"], skips), "ad_feature.csv", "item", skips)
            log = self._read_clicks(
                blobs["raw_sample.csv"], EventLog("raw_sample.csv", skips, make_item_encoder(items))
            )
        users = _read_profiles(blobs["user_profile.csv"], skips)
        return assemble("aliec", log, items, users, ("ad_feature.csv", "user_profile.csv"))

    def _read_clicks(self, blob: Blob, log: EventLog) -> EventLog:
        """Read the impressions, or the clicks among them."""
        columns = {"user": "user", "adgroup_id": "item", "time_stamp": "time", "clk": "clk"}
        for part in TextTable(blob, TextLayout(), log.skips).read_frames(list(columns)):
            frame = part.rename(columns)
            clicked = frame["clk"].str.strip_chars().fill_null("")
            frame = log.reject(frame, ~clicked.is_in(["0", "1"]), "clk is neither 0 nor 1")
            if self.events == "clicks":
                frame = frame.filter(pl.col("clk").str.strip_chars() == "1")
            log.add(frame.drop("clk"))
        return log

    def _read_ads(self, blob: Blob, skips: Skips) -> Iterator[pl.DataFrame]:
        """Read the ads."""
        category = pl.col(self.category).str.strip_chars()
        present = pl.when(category != "NULL").then(category)
        for frame in TextTable(blob, TextLayout(), skips).read_frames(["adgroup_id", self.category]):
            yield frame.select(
                pl.col("adgroup_id").alias(ID_COLUMN), pl.concat_list(present).alias("categories"), LINE_COLUMN
            )

    def _read_behaviors(self, blob: Blob, skips: Skips) -> EventLog:
        """Read the behavior log."""
        log = EventLog("behavior_log.csv", skips)
        for part in TextTable(blob, TextLayout(), skips).read_frames(["user", "time_stamp", "btag", "cate", "brand"]):
            action = part["btag"].str.strip_chars().fill_null("")
            frame = log.reject(part, ~action.is_in(_BEHAVIORS), "btag is none of pv, cart, fav, buy")
            frame = frame.with_columns(pl.col("btag", "cate", "brand").str.strip_chars())
            frame = frame.filter(pl.col("btag").is_in(self.behaviors))
            pair = pl.concat_str(["cate", "brand"], separator="/")
            mark = pl.col("btag").replace_strict(list(_BEHAVIORS), [0, 1, 2, 3], return_dtype=pl.Int8)
            log.add(
                frame.select(
                    "user", pair.alias("item"), pl.col("time_stamp").alias("time"), mark.alias("mark"), LINE_COLUMN
                )
            )
        return log


def _make_catalog(log: EventLog) -> pl.DataFrame:
    """Return the catalogue of category and brand pairs that a log holds."""
    category = pl.col(ID_COLUMN).str.split("/").list.head(1).alias("categories")
    return pl.DataFrame({ID_COLUMN: log.items.ids, LINE_COLUMN: log.items.lines}).with_columns(category)


def _read_profiles(blob: Blob, skips: Skips) -> pl.DataFrame:
    """Read the profiles; every column but the id is an attribute."""
    table = TextTable(blob, TextLayout(), skips)
    frames = (frame.rename({"userid": ID_COLUMN}) for frame in table.read_frames(["userid", *_list_others(table)]))
    return gather_table(frames, table.file, "user", skips)


def _list_others(table: TextTable) -> list[str]:
    return [name for name in table.names if name != "userid"]
