"""Packing: many short examples in one row of tokens, each seeing itself alone.

Padding a batch of prompts to the longest costs a third of the work and more. Here the examples of a step stand one
after another in one row, with positions that start anew and attention that ends at each example's border, so a packed
step computes what an unpacked one does (`tests/victims/test_language_packing.py`); see `attention`.

Some tokens may stand for items instead of text: their inputs are vectors that the caller makes (`Tokens.item`).
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cowbird.data.types import Int32Array, IntArray, concat_ranges
from cowbird.victims.language.attention import Borders, Documents
from cowbird.victims.language.examples import IGNORED_LABEL, Tokens
from cowbird.victims.language.shared_beginnings import SharedBeginnings
from cowbird.victims.language.shared_rows import SharedRows, place_branches

TOKENS_MULTIPLE, PREDICTIONS_MULTIPLE, MAX_PADDING_TOKENS = 512, 128, 128
"""On a GPU, rows are padded to a multiple of this many tokens and of this many predicted ones, by documents of at most
so many tokens. No kernel may be told of a longest document that is shorter than one of them."""
SIZES_PER_DOUBLING = 16
"""Rows of many tokens, or with many predicted ones, are padded to so many sizes between one and its double: each size
may be recorded once more (`engine.GradientAccumulator`), which takes as long as several steps."""


@dataclass(frozen=True, slots=True, eq=False)
class Pack:
    """Some examples in one row."""

    token: Tensor
    """Tokens, shape `[1, tokens]`, int64."""
    position: Tensor
    """Positions, which start from 0 in each document, shape `[1, tokens]`, int64."""
    documents: Borders
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


class PackSizes(NamedTuple):
    """How large the parts of a sheet are."""

    tokens: int
    documents: int
    predicted: int
    longest: int
    items: bool
    among: tuple[int, ...] = ()
    both_ways: bool = False
    row: int = 0
    beginnings: int = 0
    """How many stand before all texts; each stands in a row with its own if 0."""


class HostPack(NamedTuple):
    """A pack on the host: all of its whole numbers in one array, so that they travel at once."""

    flat: Int32Array
    """Tokens, positions, borders, predicting tokens, labels, shares, perhaps items; int32."""
    sizes: PackSizes
    """Where one ends and the next begins."""
    bounds: tuple[int, ...]
    """The borders once more; empty for a GPU."""


def lay_out(tokens: Tokens, index: IntArray, gpu: bool = False, examples: int = 1, room: int = 0) -> HostPack:
    """Put examples into one row.

    Args:
        tokens: All examples.
        index: Which of them, shape `[examples]`.
        gpu: Whether rows are padded to few different sizes.
        examples: How many examples the loss is the mean of; 1 makes it a sum.
        room: Documents to leave room for on a GPU.
    """
    if tokens.branch is not None:
        return (_lay_out_beginnings if gpu else _lay_out_rows)(tokens, index, examples)
    start, length = tokens.offsets[:-1][index], tokens.lengths[index]
    row = concat_ranges(start, length)
    bounds = np.concatenate([[0], np.cumsum(length)])
    before = tokens.answer[index] - start
    answer = length - before
    place = concat_ranges(bounds[:-1] + before, answer)
    arrays: list[NDArray[Any]] = [tokens.token[row], concat_ranges(np.zeros_like(length), length), bounds, place - 1]
    label = tokens.token if tokens.label is None else tokens.label
    share = np.repeat(answer, answer) if tokens.share is None else tokens.share[row][place]
    arrays += [label[row][place], share * examples]
    if tokens.item is not None:
        arrays.append(tokens.item[row])
    longest, borders = int(length.max()), tuple(bounds.tolist())
    if gpu:
        # Few different lengths, each of which may mean another compilation; no document of padding is longer.
        longest, borders = max(MAX_PADDING_TOKENS, 1 << (longest - 1).bit_length()), ()
        arrays = _pad_arrays(arrays, max(room, len(index)) + 1)
    ways = tokens.among, tokens.both_ways
    sizes = PackSizes(len(arrays[0]), len(arrays[2]) - 1, len(arrays[3]), longest, len(arrays) > 6, *ways)
    return HostPack(np.concatenate([array.astype(np.int32) for array in arrays]), sizes, borders)


class _Rows(NamedTuple):
    """Rows of texts that share a beginning, each padded to one length; arrays of `[rows * length]`."""

    token: NDArray[np.int64]
    branch: NDArray[np.int64]
    position: NDArray[np.int64]
    learned: tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]
    """Places whose successors are learned, those successors' labels, and divisors of their losses."""


def _gather_rows(tokens: Tokens, index: IntArray, examples: int) -> _Rows:
    assert tokens.branch is not None and tokens.label is not None and tokens.share is not None
    start, length, many = tokens.offsets[:-1][index], tokens.lengths[index], tokens.row
    taken = concat_ranges(start, length)
    where = concat_ranges(np.arange(len(index)) * many, length)
    token, branch = np.zeros(len(index) * many, np.int64), np.full(len(index) * many, -1, np.int64)
    token[where], branch[where] = tokens.token[taken], tokens.branch[taken]
    learned = tokens.label[taken] != IGNORED_LABEL
    told = where[learned] - 1, tokens.label[taken][learned], tokens.share[taken][learned] * examples
    return _Rows(token, branch, place_branches(branch.reshape(-1, many)).ravel(), told)


def _lay_out_rows(tokens: Tokens, index: IntArray, examples: int) -> HostPack:
    """Put rows of texts that share a beginning behind one another, each padded to `Tokens.row` tokens."""
    rows = _gather_rows(tokens, index, examples)
    more = -len(rows.learned[0]) % _find_multiple(len(rows.learned[0]), PREDICTIONS_MULTIPLE)
    told = [np.concatenate([array, np.zeros(more, np.int64)]) for array in rows.learned]
    sizes = PackSizes(len(rows.token), 0, len(told[0]), tokens.row, False, tokens.among, True, tokens.row)
    arrays = [rows.token, rows.position, rows.branch, *told]
    return HostPack(np.concatenate([array.astype(np.int32) for array in arrays]), sizes, ())


def _lay_out_beginnings(tokens: Tokens, index: IntArray, examples: int) -> HostPack:
    """Put the beginnings of rows behind one another, then all texts behind them; for a GPU."""
    rows, many = _gather_rows(tokens, index, examples), tokens.row
    branch = rows.branch.reshape(-1, many)
    order = np.concatenate([np.flatnonzero(rows.branch == 0), np.flatnonzero(rows.branch > 0)])
    place = np.empty(len(rows.branch), np.int64)
    place[order] = np.arange(len(order))
    told = place[rows.learned[0]], *rows.learned[1:]
    beginnings = np.concatenate([[0], np.cumsum((branch == 0).sum(axis=1))])
    runs = beginnings[-1] + np.concatenate([[0], np.cumsum((branch > 0).sum(axis=1))])
    # Texts of two rows may have the same number.
    text = (branch + np.arange(len(branch))[:, None] * (many + 1)).ravel()[order[beginnings[-1] :]]
    ends = np.flatnonzero(np.diff(text)) + 1
    texts = beginnings[-1] + np.concatenate([[0], ends, [len(text)]])
    longest = max(MAX_PADDING_TOKENS, 1 << int(np.diff(texts).max() - 1).bit_length())
    room = max(PREDICTIONS_MULTIPLE, 1 << (len(texts) - 1).bit_length())
    arrays = _pad_arrays([rows.token[order], rows.position[order], texts, *told], room + 1)
    sizes = PackSizes(
        *(len(arrays[0]), len(arrays[2]) - 1, len(arrays[3]), longest, False, tokens.among, True, many),
        beginnings=len(branch),
    )
    arrays[2] = np.concatenate([arrays[2], runs, beginnings])
    return HostPack(np.concatenate([array.astype(np.int32) for array in arrays]), sizes, ())


def _find_multiple(many: int, least: int) -> int:
    """Return what a size is rounded up to a multiple of, a power of two."""
    return max(least, (1 << max(0, many - 1).bit_length()) // (2 * SIZES_PER_DOUBLING))


def _pad_arrays(arrays: Sequence[NDArray[Any]], borders: int) -> list[NDArray[Any]]:
    """Pad a row with documents that nothing is predicted from, then with empty ones."""
    token, _, bounds, predict = arrays[:4]
    step = _find_multiple(len(token), TOKENS_MULTIPLE)
    spare, more = -len(token) % step, -len(predict) % _find_multiple(len(predict), PREDICTIONS_MULTIPLE)
    borders += step // MAX_PADDING_TOKENS
    ends = len(token) + np.minimum(spare, MAX_PADDING_TOKENS * np.arange(1, borders - len(bounds) + 1))
    fill: list[NDArray[Any]] = [np.zeros(spare, np.int64), np.arange(spare) % MAX_PADDING_TOKENS, ends]
    fill += [np.zeros(more, np.int64)] * 3 + [np.full(spare, -1)]
    return [np.concatenate(pair) for pair in zip(arrays, fill, strict=False)]


def unfold(flat: Tensor, sizes: PackSizes, bounds: tuple[int, ...] = ()) -> Pack:
    """Return the pack that a sheet holds, once it is on its device."""
    tokens, predicted = sizes.tokens, sizes.predicted
    widths = [tokens, tokens, _count_borders(sizes), predicted, predicted, predicted] + [tokens] * sizes.items
    token, position, offsets, predict, label, share, *rest = cut_parts(flat, widths)
    weight = torch.where(share > 0, 1.0 / share.clamp(min=1), 0.0)
    held = [part.long() for part in (token, position, predict, label, *rest)]
    item = held[4] if sizes.items else None
    seen = _find_borders(sizes, offsets, bounds)
    return Pack(held[0][None], held[1][None], seen, held[2], held[3], weight, item, sizes.among)


def _count_borders(sizes: PackSizes) -> int:
    if sizes.beginnings:
        return sizes.documents + 1 + 2 * (sizes.beginnings + 1)
    return sizes.tokens if sizes.row else sizes.documents + 1


def _find_borders(sizes: PackSizes, offsets: Tensor, bounds: tuple[int, ...]) -> Borders:
    """Return what sees what, of the part of a sheet that says it."""
    if sizes.beginnings:
        widths = [sizes.documents + 1, sizes.beginnings + 1, sizes.beginnings + 1]
        texts, runs, beginnings = (part.contiguous() for part in cut_parts(offsets, widths))
        return SharedBeginnings(texts, runs, beginnings, sizes.longest, sizes.row)
    if sizes.row:
        return SharedRows.see(offsets.view(-1, sizes.row))
    return Documents(bounds, offsets, sizes.longest, not sizes.both_ways)


def cut_parts(flat: Tensor, widths: list[int]) -> tuple[Tensor, ...]:
    """Cut an array into parts of some widths."""
    return cast("tuple[Tensor, ...]", flat.split(widths))


def pack(tokens: Tokens, index: IntArray, device: torch.device, examples: int = 1) -> Pack:
    """Put examples into one row on a device; see `lay_out`."""
    sheet = lay_out(tokens, index, device.type == "cuda", examples)
    return unfold(to_device(sheet.flat, device), sheet.sizes, sheet.bounds)


def fill_row(row: Pack, multiple: int) -> Pack:
    """Lengthen a row on a processor to a multiple of some tokens, by a document that nobody asks about."""
    known = row.token.shape[1]
    spare = -known % multiple
    if not spare or not isinstance(row.documents, Documents):
        return row
    end, borders = known + spare, row.documents
    offsets = torch.cat([borders.offsets, borders.offsets.new_tensor([end])])
    documents = Documents((*borders.bounds, end), offsets, max(borders.longest, spare), borders.causal)
    token, position = F.pad(row.token, (0, spare)), torch.cat([row.position, torch.arange(spare)[None]], dim=1)
    return replace(row, token=token, position=position, documents=documents)


def to_device(flat: Int32Array, device: torch.device) -> Tensor:
    """Bring an array to a device, in a copy that nobody waits for."""
    host = torch.from_numpy(flat)
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host


def split_runs(lengths: IntArray, index: IntArray, capacity: int) -> Iterator[IntArray]:
    """Cut examples, in their order, into runs of at most `capacity` tokens (or of one longer example)."""
    first, held = 0, 0
    for place, length in enumerate(lengths[index].tolist()):
        if held and held + length > capacity:
            yield index[first:place]
            first, held = place, 0
        held += length
    if held:
        yield index[first:]


ItemEmbedder = Callable[[Tensor], Tensor]
"""Makes the inputs of items, shape `[items]` to `[items, hidden]`."""


def embed_inputs(causal: Any, token: Tensor, item: Tensor | None, inputs: ItemEmbedder | None) -> dict[str, Tensor]:
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


def compute_hidden_states(causal: Any, row: Pack, places: Tensor, inputs: ItemEmbedder | None = None) -> Tensor:
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
    given = embed_inputs(causal, row.token, row.item, inputs)
    with limit_last_layer(causal, places, row.token.shape[1]):
        out = causal.base_model(**given, position_ids=row.position, use_cache=False, documents=row.documents)
    return out.last_hidden_state[0][places]


@contextmanager
def limit_last_layer(causal: Any, places: Tensor, tokens: int) -> Generator[None]:
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


def answer_loss(causal: Any, row: Pack, inputs: ItemEmbedder | None = None) -> Tensor:
    """Return the sum of the answers' cross-entropies, weighted as the pack says; logits are made at answers alone."""
    states = compute_hidden_states(causal, row, row.predict, inputs)
    head: Any = causal.get_output_embeddings()
    logits = (
        F.linear(states, torch.stack([head.weight[word] for word in row.among])) if row.among else head(states)
    ).float()
    return torch.sum(F.cross_entropy(logits, row.label, reduction="none", ignore_index=IGNORED_LABEL) * row.weight)
