"""Checkpoints of RecBole: the `.pth` that its trainer writes for SASRec, GRU4Rec and BERT4Rec.

The file holds the trainer's configuration as an object of RecBole's class. It is read as a record, and heads,
activation and dropout are taken from it. It has no ids of items: RecBole keeps them in its data set. So they are given
as a map, or items are numbered as RecBole numbers them, less one for the padding.
"""

from typing import Any, ClassVar, get_args

import numpy as np

from cowbird.victims.loaders._checkpoints import ForeignCheckpoint
from cowbird.victims.loaders._pickles import InertRecord, is_dict
from cowbird.victims.loaders.base import (
    MAX_LENGTH,
    Blueprint,
    Loader,
    Placement,
    check_shape,
    count_layers,
    place_items,
    read_integer,
    read_matrix_shape,
    read_share,
    refuse_unsupported,
)
from cowbird.victims.loaders.networks import Activation, RecBoleGRU, RecBoleTransformer, TransformerShape

_ITEMS = "item_embedding.weight"
_BLOCK = "trm_encoder.layer."
_QUERY = ".multi_head_attention.query.weight"
_GRU = "gru_layers.weight_ih_l"
_BLOCK_NAMES = {
    "multi_head_attention.query": "query",
    "multi_head_attention.key": "key",
    "multi_head_attention.value": "value",
    "multi_head_attention.dense": "merge",
    "multi_head_attention.LayerNorm": "attention_norm",
    "feed_forward.dense_1": "widen",
    "feed_forward.dense_2": "narrow",
    "feed_forward.LayerNorm": "feed_norm",
}
_KNOWN_MODELS = ("SASRec", "GRU4Rec", "BERT4Rec")
_DEFAULT_EPSILON = 1e-12
_DEFAULT_LENGTH = 50


class RecBole(Loader):
    """Checkpoints of RecBole: SASRec, GRU4Rec and BERT4Rec."""

    library: ClassVar[str] = "RecBole"

    @classmethod
    def recognize(cls, checkpoint: ForeignCheckpoint) -> bool:
        """Tell whether it is one; see `Loader.recognize`."""
        if _read_settings(checkpoint):
            return True
        names = checkpoint.tensors
        return _ITEMS in names and (f"{_BLOCK}0{_QUERY}" in names or f"{_GRU}0" in names)

    def plan(self, checkpoint: ForeignCheckpoint) -> Blueprint:
        """Say how it is read; see `Loader.plan`."""
        settings = _read_settings(checkpoint)
        named = settings.get("model")
        if isinstance(named, str) and named not in _KNOWN_MODELS:
            reason = f"of RecBole {', '.join(_KNOWN_MODELS)} can be read"
            raise refuse_unsupported(checkpoint, f"RecBole {named[:40]}", reason)
        if f"{_GRU}0" in checkpoint.tensors:
            return self._plan_gru(checkpoint, settings)
        return self._plan_transformer(checkpoint, settings)

    def _plan_gru(self, checkpoint: ForeignCheckpoint, settings: dict[Any, Any]) -> Blueprint:
        rows, embedding = read_matrix_shape(checkpoint, _ITEMS)
        layers = count_layers(checkpoint, _GRU, "")
        hidden = read_matrix_shape(checkpoint, "gru_layers.weight_hh_l0")[1]
        given = self.max_length or settings.get("MAX_ITEM_LIST_LENGTH", _DEFAULT_LENGTH)
        length = read_integer(checkpoint, given, "max_length", most=MAX_LENGTH)
        kinds = [f"weight_{kind}_l{layer}" for layer in range(layers) for kind in ("ih", "hh")]
        return Blueprint(
            title="RecBole GRU4Rec",
            network=lambda items: RecBoleGRU(items, embedding, hidden, layers, length),
            placements=(
                *place_items(_ITEMS, rows - 1, 1, 0),
                *(Placement(f"gru_layers.{kind}", f"recur.{kind}") for kind in kinds),
                *(Placement(f"dense.{kind}", f"merge.{kind}") for kind in ("weight", "bias")),
            ),
            items=rows - 1,
            first=1,
            dropout=read_share(settings.get("dropout_prob"), 0.3),
            shape=None,
        )

    def _plan_transformer(self, checkpoint: ForeignCheckpoint, settings: dict[Any, Any]) -> Blueprint:
        masked = "output_bias" in checkpoint.tensors
        rows, hidden = read_matrix_shape(checkpoint, _ITEMS)
        items = rows - 1 - int(masked)
        layers = count_layers(checkpoint, _BLOCK, _QUERY)
        shape = check_shape(
            checkpoint,
            TransformerShape(
                items=items,
                hidden=hidden,
                length=read_matrix_shape(checkpoint, "position_embedding.weight")[0],
                layers=layers,
                heads=read_integer(checkpoint, self.heads or settings.get("n_heads"), "heads"),
                inner=read_matrix_shape(checkpoint, f"{_BLOCK}0.feed_forward.dense_1.weight")[0],
                activation=self._find_activation(checkpoint, settings),
                epsilon=read_share(settings.get("layer_norm_eps"), _DEFAULT_EPSILON),
            ),
        )
        names = {"LayerNorm": "norm"} | {
            f"{_BLOCK}{layer}.{file}": f"blocks.{layer}.{own}"
            for layer in range(layers)
            for file, own in _BLOCK_NAMES.items()
        }
        columns = slice(0, hidden) if masked else None
        more: tuple[Placement, ...] = ()
        if masked:
            names |= {"output_ffn": "head", "output_ln": "head_norm"}
            own = np.arange(items, dtype=np.int64)
            more = (
                Placement(_ITEMS, "mask_vector", np.array([items + 1])),
                Placement("output_bias", "item.weight", own + 1, own, slice(hidden, hidden + 1), per_item=True),
            )
        return Blueprint(
            title="RecBole BERT4Rec" if masked else "RecBole SASRec",
            network=lambda size: RecBoleTransformer(shape._replace(items=size), masked),
            placements=(
                *place_items(_ITEMS, items, 1, 0, columns),
                Placement("position_embedding.weight", "position.weight"),
                *(Placement(f"{a}.{kind}", f"{b}.{kind}") for a, b in names.items() for kind in ("weight", "bias")),
                *more,
            ),
            items=items,
            first=1,
            dropout=read_share(settings.get("hidden_dropout_prob"), 0.5),
            shape=shape,
        )

    def _find_activation(self, checkpoint: ForeignCheckpoint, settings: dict[Any, Any]) -> Activation:
        given = self.activation or settings.get("hidden_act", "gelu")
        known: dict[Any, Activation] = {name: name for name in get_args(Activation)}
        if isinstance(given, str) and given in known:
            return known[given]
        return checkpoint.refuse("its activation is unknown", "Give it: --set activation=gelu, or what it is.")


def _read_settings(checkpoint: ForeignCheckpoint) -> dict[Any, Any]:
    """Return the settings of the trainer that stand in the file; empty if there are none."""
    root: Any = checkpoint.root
    config: Any = root.get("config") if is_dict(root) else None
    if not isinstance(config, InertRecord) or not config.name.startswith("recbole.") or not is_dict(config.state):
        return {}
    found = config.state.get("final_config_dict")
    return found | {"model": config.state.get("model", found.get("model"))} if is_dict(found) else {}
