"""Titles before they are judged: what is known of each without its catalogue, and the fragments that they have."""

from collections.abc import Sequence

from cowbird.data.types import Int64Array
from cowbird.defenses.p_scanner.column_evidence import ClearedWords, ColumnFindings, TitleColumns, ask_columns
from cowbird.defenses.p_scanner.fragment_table import FragmentNames, FragmentTable, find_recurring, index_fragments
from cowbird.defenses.p_scanner.title_traits import TitleTraits, describe_traits, mark_words
from cowbird.defenses.p_scanner.token_logits import TokenLogits

MAX_WORDS_NUMBERED, MAX_WORDS_REMEMBERED = 40_000, 600_000
"""Words of a catalogue from which fragments of one title are not listed, since none of them recurs; and of a
calibration, which remembers them as long as it can, for they may recur among later titles."""


def index_catalog(
    texts: Sequence[str],
    marks: TokenLogits,
    titles: Sequence[str],
    rows: Int64Array,
    columns: TitleColumns | None,
) -> tuple[TitleTraits, FragmentTable, ColumnFindings]:
    """Return what is known of titles without their catalogue, their fragments, and what other columns say of those.

    Args:
        texts: All titles.
        marks: What the tagger says of them.
        titles: Those that are judged together.
        rows: Where these stand.
        columns: Their other columns; `None` for none.
    """
    traits, table = index_titles(texts, marks)
    if columns is None:
        return traits, table, ColumnFindings()
    found = ask_columns(titles, traits, table, rows, columns)
    if found.words.phrases:
        traits, table = index_titles(texts, marks, found.words)
    return traits, table, found


def index_titles(
    titles: Sequence[str],
    marks: TokenLogits,
    cleared: ClearedWords | None = None,
    most_words: int = MAX_WORDS_NUMBERED,
) -> tuple[TitleTraits, FragmentTable]:
    """Return what is known of titles without their catalogue, and their fragments.

    Args:
        titles: The titles.
        marks: What the tagger says of them.
        cleared: Words that other columns explain.
        most_words: From how many words on fragments are listed only if they recur.
    """
    words = mark_words(titles, marks)
    traits = describe_traits(words if cleared is None else cleared.quiet(words))
    wanted = find_recurring(words) if len(words.text) > most_words else None
    return traits, index_fragments(traits.words, FragmentNames(), wanted)
