"""Checkpoints of RecTools: SASRec, as Lightning writes it (`.ckpt`) or as the model's own `save` does.

Settings and ids of items stand in the file. Item networks of ids alone are read; those that read features of items,
other transformer layers than SASRec's, and distances other than the product are refused.
"""

from typing import Any, ClassVar

import numpy as np

from cowbird.victims.loaders._checkpoints import ForeignCheckpoint
from cowbird.victims.loaders._pickles import InertRecord, is_dict, is_list, is_tuple
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
from cowbird.victims.loaders.item_map import check_item_ids
from cowbird.victims.loaders.networks import AuthorsStyle, AuthorsTransformer, TransformerShape

_ROOT = "torch_model."
_ITEMS = f"{_ROOT}item_model.item_net_blocks.0.ids_emb.weight"
_POSITIONS = f"{_ROOT}pos_encoding_layer.pos_emb.weight"
_LAYERS = f"{_ROOT}transformer_layers."
_BLOCKS = f"{_LAYERS}transformer_blocks."
_BLOCK_NAMES = {
    "multi_head_attn.in_proj_": "project.",
    "multi_head_attn.out_proj.": "merge.",
    "q_layer_norm.": "attention_norm.",
    "ff_layer_norm.": "feed_norm.",
    "feed_forward.ff_linear_1.": "widen.",
    "feed_forward.ff_linear_2.": "narrow.",
}
_EXPECTED = {
    "cls": "SASRecModel",
    "transformer_layers_type": "SASRecTransformerLayers",
    "pos_encoding_type": "LearnableInversePositionalEncoding",
    "similarity_module_type": "DistanceSimilarityModule",
    "backbone_type": "TransformerTorchBackbone",
    "item_net_constructor_type": "SumOfEmbeddingsConstructor",
    "data_preparator_type": "SASRecDataPreparator",
}
"""Parts of the network that are built here, by the setting that names them."""
_BLOCK_EPSILON, _LAST_EPSILON = 1e-5, 1e-8


class RecTools(Loader):
    """Checkpoints of RecTools: SASRec."""

    library: ClassVar[str] = "RecTools"

    @classmethod
    def recognize(cls, checkpoint: ForeignCheckpoint) -> bool:
        """Tell whether it is one; see `Loader.recognize`."""
        return any(name.startswith(f"{_ROOT}item_model.") for name in checkpoint.tensors)

    def plan(self, checkpoint: ForeignCheckpoint) -> Blueprint:
        """Say how it is read; see `Loader.plan`."""
        given = checkpoint.get_section("hyper_parameters")
        held = given.get("model_config")
        settings = held if is_dict(held) else {}
        _check_settings(checkpoint, settings)
        rows, hidden = read_matrix_shape(checkpoint, _ITEMS)
        layers = count_layers(checkpoint, _BLOCKS, ".multi_head_attn.in_proj_weight")
        positions = _POSITIONS in checkpoint.tensors
        length = read_matrix_shape(checkpoint, _POSITIONS)[0] if positions else self.max_length
        shape = check_shape(
            checkpoint,
            TransformerShape(
                items=rows - 1,
                hidden=hidden,
                length=read_integer(checkpoint, length or settings.get("session_max_len"), "max_length", 1, MAX_LENGTH),
                layers=layers,
                heads=read_integer(checkpoint, self.heads or settings.get("n_heads"), "heads"),
                inner=read_matrix_shape(checkpoint, f"{_BLOCKS}0.feed_forward.ff_linear_1.weight")[0],
                activation=self.activation or "relu",
                epsilon=_BLOCK_EPSILON,
            ),
        )
        encoding = settings.get("pos_encoding_kwargs")
        style = AuthorsStyle(
            scaled=is_dict(encoding) and encoding.get("use_scale_factor") is True,
            sees_padding=settings.get("use_key_padding_mask") is not True,
            last_epsilon=_LAST_EPSILON,
        )
        moved = {
            f"{_BLOCKS}{layer}.{file}": f"blocks.{layer}.{own}"
            for layer in range(layers)
            for file, own in _BLOCK_NAMES.items()
        }
        return Blueprint(
            title="RecTools SASRec",
            network=lambda items: AuthorsTransformer(shape._replace(items=items), style, positions),
            placements=(
                *place_items(_ITEMS, rows - 1, 1, 0),
                *((Placement(_POSITIONS, "position.weight"),) if positions else ()),
                *(
                    Placement(f"{file}{kind}", f"{own}{kind}")
                    for file, own in (moved | {f"{_LAYERS}last_layernorm.": "norm."}).items()
                    for kind in ("weight", "bias")
                ),
            ),
            items=rows - 1,
            first=1,
            dropout=read_share(settings.get("dropout_rate"), 0.2),
            shape=shape,
            ids=_read_ids(checkpoint, given.get("item_external_ids"), rows),
        )


def _check_settings(checkpoint: ForeignCheckpoint, settings: dict[Any, Any]) -> None:
    """Refuse networks that are put together otherwise.

    Raises:
        UserError: If it is such a one.
    """
    for name, expected in _EXPECTED.items():
        told = settings.get(name, expected)
        if not isinstance(told, str) or told.rpartition(".")[2] != expected:
            shown = told[-60:] if isinstance(told, str) else "something else"
            raise refuse_unsupported(checkpoint, "RecTools model", f"its {name} is {shown}, not {expected}")
    distance = settings.get("similarity_module_kwargs")
    if is_dict(distance) and distance.get("distance", "dot") != "dot":
        raise refuse_unsupported(checkpoint, "RecTools SASRec", "its distance is not the product")
    if settings.get("use_causal_attn", True) is not True:
        raise refuse_unsupported(checkpoint, "RecTools SASRec", "its attention looks both ways")
    if _ITEMS not in checkpoint.tensors or any(".item_net_blocks.1." in name for name in checkpoint.tensors):
        raise refuse_unsupported(checkpoint, "RecTools SASRec", "it reads features of items beside their ids")


def _read_ids(checkpoint: ForeignCheckpoint, held: Any, rows: int) -> tuple[str, ...] | None:
    """Return the ids of the items, which stand in the file as an array of NumPy behind the padding's."""
    if not isinstance(held, InertRecord) or not is_tuple(held.state) or len(held.state) < 5:
        return None
    values = held.state[4] if is_list(held.state[4]) else _read_integers(held.state)
    if values is None:
        return None
    ids = [str(value) for value in values if isinstance(value, str | int)]
    if len(ids) != len(values) or len(ids) != rows:
        checkpoint.refuse(f"it has ids of {len(ids)} items, and rows of {rows}")
    return check_item_ids(ids[1:], rows - 1, f"'{checkpoint.path}'")


def _read_integers(state: tuple[Any, ...]) -> list[int] | None:
    """Return the numbers of an array of 64-bit integers, whose bytes may stand as Latin-1 text."""
    data = state[4]
    if isinstance(data, InertRecord) and data.name == "_codecs.encode" and data.args and isinstance(data.args[0], str):
        data = data.args[0].encode("latin-1", "replace")
    kind = state[2].args[:1] if isinstance(state[2], InertRecord) else ()
    if not isinstance(data, bytes) or len(data) % 8 or kind != ("i8",):
        return None
    return np.frombuffer(data, dtype="<i8").tolist()
