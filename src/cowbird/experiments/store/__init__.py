"""What a run keeps: made once, sealed, and found again by the same run, a resumed one, or one that has grown."""

from cowbird.experiments.store.columns import ColumnStore, to_tensors
from cowbird.experiments.store.digests import hash_parts
from cowbird.experiments.store.models import FittableVictim, ModelStore, ProgressReport
from cowbird.experiments.store.seals import SealedStore

__all__ = [
    "ColumnStore",
    "FittableVictim",
    "ModelStore",
    "ProgressReport",
    "SealedStore",
    "hash_parts",
    "to_tensors",
]
