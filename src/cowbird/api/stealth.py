"""How visible any change of any text is, as a table."""

import dataclasses

import polars as pl

from cowbird.data.tables import read_texts
from cowbird.errors import UserError
from cowbird.metrics.stealth import count_characters, edit_distance, relative_edit_distance


def compare_texts(
    before: object, after: object, llm: str | None = None, *, text_column: str = "title", device: str = "auto"
) -> pl.DataFrame:
    """Measure how visible the changes of some texts are: characters always, surprise where a language model reads them.

    Args:
        before: Texts as they were: a list, a polars or pandas series, or a frame.
        after: The same texts after the change, as many and in the same order.
        llm: The language model: the name of an embedded one such as `smollm2-135m`, a folder, a GGUF file or a hub id;
            `None` measures characters alone.
        text_column: The column of texts, where one of the two is a frame.
        device: Where the model runs: `auto`, `cpu`, `cuda` or `cuda:N`.

    Returns:
        One row a text, in order: `before`, `after`, `edits` (characters), `relative_edits` (0 to 1), and characters of
        each kind that the change added (`added_control`, `added_format`, `added_bidi`, `added_combining`,
        `added_non_ascii_letters`, `added_mixed_words`). With a model also `perplexity_before`, `perplexity_after`,
        `perplexity_ratio`, `added_bits` and `similarity` (cosine, -1 to 1). What can't be measured is null: all of it
        where one of the texts is missing.

    Raises:
        UserError: If the two differ in length or are no texts, or the model can't be used.
    """
    one, other = read_texts(before, text_column), read_texts(after, text_column)
    if len(one) != len(other):
        raise UserError(
            f"There are {len(one)} texts before and {len(other)} after the change.", "Give each text twice, in order."
        )
    rows = [{"before": old, "after": new} | _compare(old, new) for old, new in zip(one, other, strict=True)]
    table = pl.DataFrame(rows, schema=_SCHEMA)
    return table if llm is None else table.hstack(_read_with_model(one, other, llm, device))


_KINDS = ("control", "format", "bidi", "combining", "non_ascii_letters", "mixed_words")
_SCHEMA = {"before": pl.String, "after": pl.String, "edits": pl.Int64, "relative_edits": pl.Float64} | {
    f"added_{kind}": pl.Int64 for kind in _KINDS
}


def _compare(old: str | None, new: str | None) -> dict[str, float | int]:
    if old is None or new is None:
        return {}
    earlier, later = (dataclasses.asdict(count_characters(text)) for text in (old, new))
    return {"edits": edit_distance(old, new), "relative_edits": relative_edit_distance(old, new)} | {
        f"added_{kind}": later[kind] - earlier[kind] for kind in _KINDS
    }


def _read_with_model(one: list[str | None], other: list[str | None], llm: str, device: str) -> pl.DataFrame:
    import torch  # noqa: PLC0415 - who compares characters alone need not wait for it

    from cowbird.victims.fit_context import pick_device  # noqa: PLC0415
    from cowbird.victims.language.llm import Llm, load_llm  # noqa: PLC0415
    from cowbird.victims.language.perplexity import measure_title_stealth  # noqa: PLC0415

    place = pick_device(device)
    loaded = load_llm(Llm(name=llm), place, torch.float32 if place.type == "cpu" else torch.bfloat16)
    known = [row for row, pair in enumerate(zip(one, other, strict=True)) if None not in pair]
    found = measure_title_stealth(loaded, [one[row] or "" for row in known], [other[row] or "" for row in known])
    columns: dict[str, list[float | None]] = {
        name: [None] * len(one)
        for name in ("perplexity_before", "perplexity_after", "perplexity_ratio", "added_bits", "similarity")
    }
    for row, each in zip(known, found, strict=True):
        values = (each.perplexity_clean, each.perplexity_poisoned, each.perplexity_ratio, each.added_bits)
        for name, value in zip(columns, (*values, each.similarity), strict=True):
            columns[name][row] = value
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.Float64))
