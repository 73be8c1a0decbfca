"""Titles as language models read them."""

from collections.abc import Iterable

from cowbird.notices import NoticeRank, note
from cowbird.text import MAX_QUOTED_LENGTH, quote_for_prompt


def quote_titles(titles: Iterable[str]) -> list[str]:
    """Return titles as they stand in prompts (`cowbird.text.quote_for_prompt`), and tell how many are cut."""
    whole = list(titles)
    long = sum(len(title) > MAX_QUOTED_LENGTH for title in whole)
    than = f"longer than {MAX_QUOTED_LENGTH} characters: models read no more."
    note(NoticeRank.CHANGE, f"{{n}} titles are {than}", long, f"1 title is {than}")
    return [quote_for_prompt(title) for title in whole]
