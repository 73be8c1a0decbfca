"""Checkpoints of RePlay: the `.ckpt` that Lightning writes for either of its SASRecs.

`replay.models.nn.sequential.SasRec` keeps its settings in the file. `replay.nn.sequential.SasRec` keeps none, so the
number of heads must be given: `heads`. Ids of items are not in the file: RePlay keeps them in its tokenizer. Networks
with other features than items, and time-aware ones (`ti_modification`), are refused.
"""

import re
from typing import ClassVar

import numpy as np

from cowbird.victims.loaders._checkpoints import ForeignCheckpoint
from cowbird.victims.loaders.base import (
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
from cowbird.victims.loaders.networks import AuthorsStyle, AuthorsTransformer, TransformerShape

_OLD = "_model.item_embedder.item_emb.weight"
_NEW = re.compile(r"(?P<root>(?:model\.)?)body\.embedder\.feature_embedders\.(?P<feature>[^.]+)\.emb\.weight")
_BLOCK_EPSILON, _OLD_LAST_EPSILON, _NEW_LAST_EPSILON = 1e-8, 1e-8, 1e-5
_BLOCK_NAMES = {
    "attention_layers.{}.in_proj_": "project.",
    "attention_layers.{}.out_proj.": "merge.",
    "attention_layernorms.{}.": "attention_norm.",
    "forward_layernorms.{}.": "feed_norm.",
    "forward_layers.{}.conv1.": "widen.",
    "forward_layers.{}.conv2.": "narrow.",
}


class RePlay(Loader):
    """Checkpoints of RePlay: SASRec, the older one and the newer one."""

    library: ClassVar[str] = "RePlay"

    @classmethod
    def recognize(cls, checkpoint: ForeignCheckpoint) -> bool:
        """Tell whether it is one; see `Loader.recognize`."""
        return _OLD in checkpoint.tensors or any(_NEW.fullmatch(name) for name in checkpoint.tensors)

    def plan(self, checkpoint: ForeignCheckpoint) -> Blueprint:
        """Say how it is read; see `Loader.plan`."""
        settings = checkpoint.get_section("hyper_parameters")
        if settings.get("ti_modification"):
            raise refuse_unsupported(checkpoint, "RePlay TiSASRec", "networks that read times are not built here")
        if _OLD in checkpoint.tensors:
            names = _OLD, "_model.item_embedder.pos_emb.pe.weight", "_model.sasrec_layers."
            last, heads = "_model.output_normalization.last_layernorm.", settings.get("head_count")
            style = AuthorsStyle(scaled=True, sees_padding=True, last_epsilon=_OLD_LAST_EPSILON)
            return self._plan_blocks(checkpoint, names, last, heads, style, settings.get("dropout_rate"))
        found = [match for match in map(_NEW.fullmatch, checkpoint.tensors) if match is not None]
        if len(found) != 1:
            raise refuse_unsupported(checkpoint, "RePlay SASRec", f"it reads {len(found)} features beside items")
        root = f"{found[0]['root']}body."
        names = found[0][0], f"{root}embedding_aggregator.pe.weight", f"{root}encoder."
        style = AuthorsStyle(scaled=True, sees_padding=False, last_epsilon=_NEW_LAST_EPSILON)
        return self._plan_blocks(checkpoint, names, f"{root}output_normalization.", None, style, None)

    def _plan_blocks(
        self,
        checkpoint: ForeignCheckpoint,
        names: tuple[str, str, str],
        last: str,
        heads: object,
        style: AuthorsStyle,
        dropout: object,
    ) -> Blueprint:
        """Say how the network is read: names of item table, positions and blocks, and what the settings tell."""
        table, positions, blocks = names
        rows, hidden = read_matrix_shape(checkpoint, table)
        layers = count_layers(checkpoint, f"{blocks}attention_layers.", ".in_proj_weight")
        shape = check_shape(
            checkpoint,
            TransformerShape(
                items=rows - 1,
                hidden=hidden,
                length=read_matrix_shape(checkpoint, positions)[0],
                layers=layers,
                heads=read_integer(checkpoint, self.heads or heads, "heads"),
                inner=read_matrix_shape(checkpoint, f"{blocks}forward_layers.0.conv1.weight")[0],
                activation=self.activation or "relu",
                epsilon=_BLOCK_EPSILON,
            ),
        )
        moved = {
            f"{blocks}{file.format(layer)}": f"blocks.{layer}.{own}"
            for layer in range(layers)
            for file, own in _BLOCK_NAMES.items()
        }
        backwards = np.arange(shape.length, dtype=np.int64)[::-1].copy()
        return Blueprint(
            title="RePlay SASRec",
            network=lambda items: AuthorsTransformer(shape._replace(items=items), style),
            placements=(
                *place_items(table, rows - 1, 0, rows - 1),
                Placement(positions, "position.weight", backwards),
                *(
                    Placement(f"{file}{kind}", f"{own}{kind}")
                    for file, own in (moved | {last: "norm."}).items()
                    for kind in ("weight", "bias")
                ),
            ),
            items=rows - 1,
            first=0,
            dropout=read_share(dropout, 0.2),
            shape=shape,
            ignored=("_model._head.",),
        )
