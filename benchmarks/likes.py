"""Judge TALLRec's test questions without any text: what likes alone foretell, as a floor for its AUC.

    python benchmarks/likes.py --out docs/results/likes_ml100k.json

Two logistic regressions are fitted to the training questions of MovieLens-100K. The first knows the item's share of
likes among training events and the user's share among the events shown; the second also by how much the user likes what
she was shown more than others do, how often the item was rated, and how many events are shown. Questions are those with
ten events before them; up to `shown` of these are looked at.
"""

import argparse
import json
import shlex
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cowbird.data.judgments import TemporalSplit
from cowbird.data.types import Interactions
from cowbird.defenses.p_scanner.rounds.ngram_scoring import fit_classifier
from cowbird.files import write_text
from cowbird.metrics.auc import auc
from cowbird.plugins import find_plugin

PRIOR = 5.0
"""Events of average likes that each item is taken to have beside its own."""
Numbers = NDArray[np.float64]


class Likes:
    """What is known of items from training events.

    Args:
        interactions: All rated events.
        training: Which of them train, shape `[events]`.
        like_above: Ratings above this are likes.
    """

    def __init__(self, interactions: Interactions, training: NDArray[np.bool_], like_above: float) -> None:
        assert interactions.rating is not None
        self.item, self.likes = interactions.item, interactions.rating > like_above
        self.start = interactions.offsets[:-1][interactions.user_of_event()]
        known, items = self.item[training], int(self.item.max()) + 1
        self.rated = np.bincount(known, minlength=items).astype(np.float64)
        self.liked = np.bincount(known, self.likes[training], minlength=items)
        self.average = float(self.likes[training].mean())
        share = (self.liked + PRIOR * self.average) / (self.rated + PRIOR)
        self.sums = np.concatenate([[0], np.cumsum(self.likes)])
        self.above = np.concatenate([[0.0], np.cumsum(self.likes - share[self.item])])

    def described(self, rows: NDArray[np.intp], shown: int, own: bool) -> Numbers:
        """Return what is known of questions about events, shape `[questions, 6]`; `own` leaves each out of its item."""
        first = np.maximum(self.start[rows], rows - shown)
        count, item = rows - first, self.item[rows]
        rated = self.rated[item] - own
        share = (self.liked[item] - (self.likes[rows] if own else 0) + PRIOR * self.average) / (rated + PRIOR)
        likes = (self.sums[rows] - self.sums[first] + 2 * self.average) / (count + 2)
        above = (self.above[rows] - self.above[first]) / (count + 3)
        columns = [np.log(share / (1 - share)), likes, above, np.log1p(rated), above * np.log(count), np.log(count)]
        return np.stack(columns, axis=1)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shown", default="10,20,50,1000")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    interactions = find_plugin("dataset", "movielens_100k")().load().interactions
    rows: list[dict[str, object]] = []
    for order in ("time", "users"):
        split = TemporalSplit(order=order)
        side = split.assign_sides(interactions)
        known = Likes(interactions, side == 0, split.like_above)
        nth = np.arange(interactions.events) - known.start
        learned, asked = (np.flatnonzero((side == part) & (nth >= split.history)) for part in (0, 2))
        for shown in map(int, options.shown.split(",")):
            given, wanted = known.described(learned, shown, own=True), known.described(asked, shown, own=False)
            for name, columns in (("shares", [0, 1]), ("all", [0, 1, 2, 3, 4, 5])):
                weights = fit_classifier(given[:, columns], known.likes[learned], np.ones(len(learned)))
                odds = weights.odds(wanted[:, columns])
                found = auc(odds.astype(np.float32), known.likes[asked])
                told = {"auc": round(found.value or 0, 4), "low": found.low, "high": found.high, "questions": found.n}
                rows.append({"order": order, "shown": shown, "knows": name, **told})
                print(json.dumps(rows[-1]), flush=True)
    if options.out:
        command = f"python benchmarks/likes.py {shlex.join(sys.argv[1:])}"
        write_text(options.out, json.dumps({"command": command, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
