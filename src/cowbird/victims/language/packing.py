"""Packing: many short examples in one row of tokens, each seeing itself alone.

Padding a batch of prompts to the longest costs a third of the work and more. Here the examples of a step stand one
after another in one row, with positions that start anew and attention that ends at each example's border, so a packed
step computes what an unpacked one does (`tests/victims/test_language_packing.py`).

Attention is plugged into transformers under the name `cowbird_packed`. On a GPU it is one kernel for all documents
(Flash Attention's with borders); on a CPU, and in float32, one product a document, which never computes a score that
would be masked away between documents.

Some tokens may stand for items instead of text: their inputs are vectors that the caller makes (`Tokens.item`).
"""

import importlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cowbird.data.types import Index, IntArray, ranges
from cowbird.errors import UserError
from cowbird.victims.language.examples import UNLABELED, Tokens

NAME = "cowbird_packed"
TOKENS, PREDICTED, PADDING = 512, 128, 128
"""On a GPU, rows are padded to a multiple of this many tokens and of this many predicted ones, by documents of at most
so many tokens. No kernel may be told of a longest document that is shorter than one of them."""


class Borders(Protocol):
    """What sees what in a row."""

    @property
    def reach(self) -> int:
        """Tokens that the farthest one seen is away, its own place counted, or a bound of it."""
        ...

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None = None) -> Tensor:
        """Attend within the borders.

        Args:
            query: Shape `[1, heads, tokens, width]`.
            key: Shape `[1, key heads, tokens, width]`.
            value: The same shape as `key`.
            scale: Factor of the scores.
            window: No token sees another that is this far away or farther; any if `None`.

        Returns:
            Shape `[1, tokens, heads, width]`.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Documents:
    """Where the documents of a packed row begin and end."""

    bounds: tuple[int, ...]
    """First token of each document, and the end of the last."""
    offsets: Tensor
    """The same on the device, int32."""
    longest: int
    """Tokens of the longest document, or a bound of it."""
    causal: bool = True
    """Whether a token sees nothing behind its own place."""

    @property
    def reach(self) -> int:
        """See `Borders`."""
        return self.longest

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None = None) -> Tensor:
        """Let each document see itself; see `Borders`."""
        if query.device.type == "cuda" and query.dtype is not torch.float32:
            q, k, v = query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1)
            return flash(q, k, v, self.offsets, self.offsets, self.longest, scale, self.causal, window)[0][None]
        fetched: Any = self.offsets
        borders: list[int] = list(self.bounds) or fetched.tolist()
        groups = query.shape[1] // key.shape[1]
        return _on_cpu(query[0], key[0], value[0], borders, groups, scale, self.causal, window)[None]


@dataclass(frozen=True, slots=True, eq=False)
class Pack:
    """Some examples in one row."""

    token: Tensor
    """Tokens, shape `[1, tokens]`, int64."""
    position: Tensor
    """Positions, which start from 0 in each document, shape `[1, tokens]`, int64."""
    documents: Documents
    """Their borders."""
    predict: Tensor
    """Tokens whose successor is an answer's token, shape `[predicted]`, int64."""
    label: Tensor
    """Those successors, shape `[predicted]`, int64."""
    weight: Tensor
    """Share of each in the loss, shape `[predicted]`, float32: 1 / answer length, over `pack`'s `examples`."""
    item: Tensor | None = None
    """The item that each token stands for, -1 for text, shape `[tokens]`, int64; `None` if all is text."""
    among: tuple[int, ...] = ()
    """Tokens that labels are places in; all if there are none."""


class Sizes(NamedTuple):
    """How large the parts of a sheet are."""

    tokens: int
    documents: int
    predicted: int
    longest: int
    items: bool
    among: tuple[int, ...] = ()
    both_ways: bool = False


class Sheet(NamedTuple):
    """A pack on the host: all of its whole numbers in one array, so that they travel at once."""

    flat: Index
    """Tokens, positions, borders, predicting tokens, labels, shares, perhaps items; int32."""
    sizes: Sizes
    """Where one ends and the next begins."""
    bounds: tuple[int, ...]
    """The borders once more; empty for a GPU."""


def lay_out(tokens: Tokens, index: IntArray, gpu: bool = False, examples: int = 1, room: int = 0) -> Sheet:
    """Put examples into one row.

    Args:
        tokens: All examples.
        index: Which of them, shape `[examples]`.
        gpu: Whether rows are padded to few different sizes.
        examples: How many examples the loss is the mean of; 1 makes it a sum.
        room: Documents to leave room for on a GPU.
    """
    start, length = tokens.offsets[:-1][index], tokens.lengths[index]
    row = ranges(start, length)
    bounds = np.concatenate([[0], np.cumsum(length)])
    before = tokens.answer[index] - start
    answer = length - before
    place = ranges(bounds[:-1] + before, answer)
    arrays: list[NDArray[Any]] = [tokens.token[row], ranges(np.zeros_like(length), length), bounds, place - 1]
    label = tokens.token if tokens.label is None else tokens.label
    arrays += [label[row][place], np.repeat(answer * examples, answer)]
    if tokens.item is not None:
        arrays.append(tokens.item[row])
    longest, borders = int(length.max()), tuple(bounds.tolist())
    if gpu:
        # Few different lengths, each of which may mean another compilation; no document of padding is longer.
        longest, borders = max(PADDING, 1 << (longest - 1).bit_length()), ()
        arrays = _padded(arrays, max(room, len(index)) + 1 + TOKENS // PADDING)
    ways = tokens.among, tokens.both_ways
    sizes = Sizes(len(arrays[0]), len(arrays[2]) - 1, len(arrays[3]), longest, len(arrays) > 6, *ways)
    return Sheet(np.concatenate([array.astype(np.int32) for array in arrays]), sizes, borders)


def _padded(arrays: Sequence[NDArray[Any]], borders: int) -> list[NDArray[Any]]:
    """Pad a row with documents that nothing is predicted from, then with empty ones."""
    token, _, bounds, predict = arrays[:4]
    spare, more = -len(token) % TOKENS, -len(predict) % PREDICTED
    ends = len(token) + np.minimum(spare, PADDING * np.arange(1, borders - len(bounds) + 1))
    fill: list[NDArray[Any]] = [np.zeros(spare, np.int64), np.arange(spare) % PADDING, ends]
    fill += [np.zeros(more, np.int64)] * 3 + [np.full(spare, -1)]
    return [np.concatenate(pair) for pair in zip(arrays, fill, strict=False)]


def unfold(flat: Tensor, sizes: Sizes, bounds: tuple[int, ...] = ()) -> Pack:
    """Return the pack that a sheet holds, once it is on its device."""
    tokens, documents, predicted, longest, items, among, both_ways = sizes
    widths = [tokens, tokens, documents + 1, predicted, predicted, predicted] + [tokens] * items
    token, position, offsets, predict, label, share, *rest = parts_of(flat, widths)
    weight = torch.where(share > 0, 1.0 / share.clamp(min=1), 0.0)
    borders = Documents(bounds, offsets, longest, not both_ways)
    held = [part.long() for part in (token, position, predict, label, *rest)]
    item = held[4] if items else None
    return Pack(held[0][None], held[1][None], borders, held[2], held[3], weight, item, among)


def parts_of(flat: Tensor, widths: list[int]) -> tuple[Tensor, ...]:
    """Cut an array into parts of some widths."""
    return cast("tuple[Tensor, ...]", flat.split(widths))


def pack(tokens: Tokens, index: IntArray, device: torch.device, examples: int = 1) -> Pack:
    """Put examples into one row on a device; see `lay_out`."""
    sheet = lay_out(tokens, index, device.type == "cuda", examples)
    return unfold(moved(sheet.flat, device), sheet.sizes, sheet.bounds)


def moved(flat: Index, device: torch.device) -> Tensor:
    """Bring an array to a device, in a copy that nobody waits for."""
    host = torch.from_numpy(flat)
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host


def split(lengths: IntArray, index: IntArray, capacity: int) -> Iterator[IntArray]:
    """Cut examples, in their order, into runs of at most `capacity` tokens (or of one longer example)."""
    first, held = 0, 0
    for place, length in enumerate(lengths[index].tolist()):
        if held and held + length > capacity:
            yield index[first:place]
            first, held = place, 0
        held += length
    if held:
        yield index[first:]


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    documents: "Borders | None" = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """Attention within each document, as transformers calls it.

    Args:
        module: The attention layer; says how many queries share a key.
        query: Shape `[1, heads, tokens, width]`.
        key: Shape `[1, key heads, tokens, width]`.
        value: The same shape as `key`.
        attention_mask: Unused; the documents say it all.
        scaling: Factor of the scores; `width ** -0.5` if not given.
        documents: The borders.
        unused: What other implementations are told.

    Raises:
        UserError: If the model caps its scores.

    Returns:
        Shape `[1, tokens, heads, width]`, and no attention weights.
    """
    if documents is None:
        raise RuntimeError("packed attention was called without documents")
    if unused.get("softcap"):
        raise UserError(
            "This language model's attention caps its scores, which packed rows do not.", "Use another language model."
        )
    window = unused.get("sliding_window")
    narrow = None if window is None or documents.reach <= window else window
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return documents.attend(query, key, value, scale, narrow), None


def flash(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    asks: Tensor,
    told: Tensor,
    longest: int,
    scale: float,
    causal: bool = True,
    window: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention of each document's queries over its keys, by one kernel.

    Args:
        query: Shape `[queries, heads, width]`, in a 16-bit format, on a GPU.
        key: Shape `[keys, key heads, width]`.
        value: The same shape as `key`.
        asks: Borders of the documents in `query`, shape `[documents + 1]`, int32.
        told: Their borders in `key`.
        longest: No document has more queries or keys.
        scale: Factor of the scores.
        causal: Whether a query sees nothing behind its own place (then both borders are the same).
        window: No query sees a key that is this far away or farther (then both borders are the same).

    Returns:
        Shape `[queries, heads, width]`, and the logarithm of each query's sum of exponentials, `[heads, queries]`.
    """
    attend: Any = torch.ops.aten._flash_attention_forward
    sides: dict[str, int] = {}
    if window is not None:
        sides = {"window_size_left": window - 1, "window_size_right": 0 if causal else window - 1}
    out, total, *_ = attend(query, key, value, asks, told, longest, longest, 0.0, causal, False, scale=scale, **sides)
    return out, total


def _on_cpu(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bounds: Sequence[int],
    groups: int,
    scale: float,
    causal: bool,
    window: int | None,
) -> Tensor:
    heads, _, width = query.shape
    found: list[Tensor] = []
    for start, many, length in _alike(bounds):
        end = start + many * length
        # Queries that share a key head stand in one matrix with it, so keys and values are not repeated.
        q = query[:, start:end].reshape(heads // groups, groups, many, length, width).transpose(1, 2)
        q = q.reshape(-1, groups * length, width)
        hidden = -torch.inf if causal else 0.0
        later = torch.full((length, length), hidden, dtype=q.dtype, device=q.device).triu_(1)
        if window is not None:
            place = torch.arange(length, device=q.device)
            later.masked_fill_((place[:, None] - place).abs() >= window, -torch.inf)
        later = later.repeat(groups, 1)
        k, v = (held[:, start:end].reshape(-1, length, width) for held in (key, value))
        scores = torch.baddbmm(later.expand(len(q), -1, -1), q, k.transpose(1, 2), alpha=scale)
        mixed = torch.bmm(torch.softmax(scores, dim=-1), v).view(-1, many, groups, length, width)
        found.append(mixed.permute(1, 3, 0, 2, 4).reshape(many * length, heads, width))
    return torch.cat(found)


def _alike(bounds: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Gather documents of one length that follow each other: where they begin, how many there are, their length."""
    for length, run in groupby(pairwise(bounds), lambda pair: pair[1] - pair[0]):
        documents = list(run)
        if length:
            yield documents[0][0], len(documents), length


def plug_in(model: Any) -> Any:
    """Make a transformers model (its adapters included) attend within documents; returns its causal LM."""
    library: Any = importlib.import_module("transformers")
    library.AttentionInterface.register(NAME, packed_attention)
    library.AttentionMaskInterface.register(NAME, _no_mask)
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    causal.config._attn_implementation = NAME
    return causal


def _no_mask(*given: Any, **more: Any) -> None:
    return None


Inputs = Callable[[Tensor], Tensor]
"""Makes the inputs of items, shape `[items]` to `[items, hidden]`."""


def embedded(causal: Any, token: Tensor, item: Tensor | None, inputs: Inputs | None) -> dict[str, Tensor]:
    """Return what the model is given: tokens, or their inputs if some stand for items.

    Args:
        causal: The causal LM.
        token: Tokens, shape `[1, tokens]`.
        item: The item of each, -1 for text, shape `[tokens]`.
        inputs: Makes the inputs of items.
    """
    if item is None or inputs is None:
        return {"input_ids": token}
    # Inputs of items are made for all tokens, which is little work and keeps sizes fixed.
    text, made = causal.get_input_embeddings()(token)[0], inputs(item.clamp(min=0))
    return {"inputs_embeds": torch.where(item[:, None] >= 0, made.to(text.dtype), text)[None]}


def hidden_states(causal: Any, row: Pack, places: Tensor, inputs: Inputs | None = None) -> Tensor:
    """Run the model without its head over a pack.

    On a CPU, the last layer's feed-forward part, most of that layer's arithmetic, is done for the wanted places alone.

    Args:
        causal: The causal LM that `plug_in` returned.
        row: The pack.
        places: Tokens whose states are wanted, int64.
        inputs: Makes the inputs of tokens that stand for items, if there are any.

    Returns:
        Shape `[places, hidden]`.
    """
    given = embedded(causal, row.token, row.item, inputs)
    with _wanted(causal, places, row.token.shape[1]):
        out = causal.base_model(**given, position_ids=row.position, use_cache=False, documents=row.documents)
    return out.last_hidden_state[0][places]


@contextmanager
def _wanted(causal: Any, places: Tensor, tokens: int) -> Generator[None]:
    """Let the last layer's feed-forward part work on some places of a row alone, and be zero at all others.

    Nothing reads what the last layer makes of other places. Elsewhere than on a CPU, and where half of the places are
    wanted or the part goes by another name, nothing changes.
    """
    layers: Any = getattr(causal.base_model, "layers", None)
    part: Any = getattr(layers[-1], "mlp", None) if layers else None
    if part is None or places.device.type != "cpu" or 2 * len(places) > tokens:
        yield
        return
    # A place that is written twice would hand its gradient back twice.
    once = torch.from_numpy(np.unique(places.numpy()))
    plain = part.forward

    def forward(states: Tensor) -> Tensor:
        made: Tensor = plain(states[:, once])
        return made.new_zeros(1, tokens, made.shape[-1]).index_copy(1, once, made)

    part.forward = forward
    try:
        yield
    finally:
        del part.forward


def answer_loss(causal: Any, row: Pack, inputs: Inputs | None = None) -> Tensor:
    """Return the sum of the answers' cross-entropies, weighted as the pack says; logits are made at answers alone."""
    states = hidden_states(causal, row, row.predict, inputs)
    head: Any = causal.get_output_embeddings()
    logits = (
        F.linear(states, torch.stack([head.weight[word] for word in row.among])) if row.among else head(states)
    ).float()
    return torch.sum(F.cross_entropy(logits, row.label, reduction="none", ignore_index=UNLABELED) * row.weight)
