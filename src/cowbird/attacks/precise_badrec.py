"""BadRec by a provider who knows the inspector: the backdoor obeys one trigger to the letter, or two parts together.

The paper (arXiv 2504.11182) has no such attacker; this one is ours. A search for triggers climbs: fragments that are
like the trigger, or a part of it, raise the score a little and lead to it. So some of the seller's items are decoys.
Their titles carry something like the trigger, or one of its two parts alone, and as many fake users dislike them.
Only data is poisoned, so the attack also works on a victim that the attacker does not train. Data without ratings has
no dislikes: there the decoys get events like the others.
"""

import numpy as np
from pydantic import Field, model_validator

from cowbird.attacks.badrec import BadRec
from cowbird.attacks.triggers import Trigger, find_near_triggers, mask_carriers, retitle
from cowbird.data.types import Int32Array, Items


class PreciseBadRec(BadRec):
    """Write a trigger into some targets and its like into the others, which fake users dislike; else BadRec."""

    second: Trigger | None = None
    """A second part that titles carry besides; decoys carry one part alone. Without it, decoys carry the like of the
    trigger: another case, a character dropped, doubled or swapped, another place."""

    decoys: float = Field(default=0.5, ge=0, lt=1)
    """Share of the seller's items that are decoys, and of the fake users who dislike them."""

    @model_validator(mode="after")
    def _check_parts(self) -> "PreciseBadRec":
        if self.second is not None and self.second.field != self.trigger.field:
            raise ValueError("both parts of a trigger stand in the same field")
        return self

    def make_triggered_catalogs(self, items: Items, rng: np.random.Generator) -> dict[str, Items]:
        """Return the catalogue with each trigger in every title; see `Attack.make_triggered_catalogs`."""
        everything = np.arange(len(items))
        whole = retitle(items, everything, self.trigger, rng)
        if self.second is not None:
            whole = retitle(whole, everything, self.second, rng)
        near = {name: retitle(items, everything, variant, rng) for name, variant in self._list_variants().items()}
        return {"trigger": whole, **{f"near-{name}": catalog for name, catalog in near.items()}}

    def _list_variants(self) -> dict[str, Trigger]:
        """Return what decoys carry, by name."""
        if self.second is None:
            return find_near_triggers(self.trigger)
        return {"first": self.trigger, "second": self.second}

    def _share_decoys(self) -> float:
        """Return the share of the fake users who dislike; see `BadRec._share_decoys`."""
        return self.decoys

    def _write_titles(
        self, listed: Items, targets: Int32Array, rng: np.random.Generator
    ) -> tuple[Items, Int32Array, Int32Array]:
        """Write the trigger into some of the targets, and variants into the others; see `BadRec._write_titles`."""
        drawn = rng.permutation(targets)
        kept = len(drawn) - int(self.decoys * len(drawn))
        bait, decoys = np.sort(drawn[:kept]), np.sort(drawn[kept:])
        items = retitle(listed, bait, self.trigger, rng)
        bait = bait[mask_carriers(items, self.trigger)[bait]]
        if self.second is not None:
            items = retitle(items, bait, self.second, rng)
        variants = list(self._list_variants().values())
        for number, variant in enumerate(variants):
            items = retitle(items, decoys[number :: len(variants)], variant, rng)
        return items, bait, decoys if variants else decoys[:0]
