"""Rates before and after an attack as a table shows them: both intervals, what they rest on, and what shows nothing."""

from cowbird.experiments.results import Row

MIN_QUESTIONS = 30
"""Questions below which a rate says little; the table says so."""
NOT_MEASURED = "–"
"""What stands where nothing was measured."""


def format_rates(before: Row | None, after: Row) -> str:
    """Return a rate of the clean model and of the attacked one, each with its interval."""
    return f"{_format_rate(before)} → {_format_rate(after)}"


def _format_rate(row: Row | None) -> str:
    if row is None or row.value is None:
        return NOT_MEASURED
    interval = "" if row.low is None or row.high is None else f" [{row.low:.2f}, {row.high:.2f}]"
    return f"{row.value:.3f}{interval}"


def format_counts(before: Row | None, after: Row) -> str:
    """Return how many questions both rates rest on, once if they are as many."""
    known = [NOT_MEASURED if row is None else f"{row.n:,}" for row in (before, after)]
    return known[0] if known[0] == known[1] else " → ".join(known)


def judge_rates(before: Row | None, after: Row, counted: bool = True) -> str:
    """Say in words what two rates show where that is nothing or little; empty where they show something.

    Args:
        before: The clean model's rate.
        after: The attacked model's.
        counted: Whether the rows count questions; those over seeds count seeds.
    """
    if after.value is None:
        return "not measured: no question was answered so that the trigger could turn it"
    few = min(after.n, after.n if before is None else before.n)
    small = f"only {few:,} question{'s' * (few != 1)}" if counted and few < MIN_QUESTIONS else ""
    ends = None if before is None else (before.low, before.high, after.low, after.high)
    if ends is None or None in ends:
        return f"shows little: {small}" if small else ""
    bottom, top, low, high = (end or 0.0 for end in ends)
    if low <= top and bottom <= high:
        more = f", and it rests on {small}" if small else ""
        return f"shows nothing: the intervals of clean and attacked model overlap{more}"
    return f"shows little: {small}" if small else ""
