"""What a run shows, in plain words: which attacks work, what each defense leaves of them, and what that costs.

Words follow from 95 % intervals alone. Two values differ if their intervals are apart; where they overlap, nothing is
shown, and the words say so. Nothing is ever called safe: what was measured is told, and what was not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from cowbird.experiments.results import Row
from cowbird.metrics.intervals import zero_limit
from cowbird.report.outcomes import Effect, Outcome, judge_effect
from cowbird.report.result_tables import format_interval, name_measure


class Tone(StrEnum):
    """How a sentence of a verdict is marked."""

    bad = "bad"
    """An attack works, or a defense does not keep it from working."""
    good = "good"
    """A defense does what it should, as far as was measured."""
    unclear = "unclear"
    """Nothing is shown, or something is missing."""


@dataclass(frozen=True, slots=True)
class VerdictLine:
    """A sentence about one defense, or about the attack itself."""

    tone: Tone
    """How it is marked."""
    label: str
    """What it is about: a defense, or `attack`."""
    words: str
    """The sentence."""


@dataclass(frozen=True, slots=True)
class AttackVerdict:
    """What was found about one attack against one victim in one scenario."""

    title: str
    """The place, in words."""
    outcomes: tuple[Outcome, ...]
    """Its outcomes, the undefended model first."""
    lines: tuple[VerdictLine, ...]
    """The sentences, the attack's first."""

    @property
    def tone(self) -> Tone:
        """How the attack itself is marked."""
        return self.lines[0].tone


def bound_zero(row: Row | None) -> Row | None:
    """Return a row; a value of zero that came without an interval gets one, up to its largest likely rate."""
    if row is None or row.value != 0 or row.high is not None or row.n < 1:
        return row
    return row.model_copy(update={"low": 0.0, "high": zero_limit(row.n)})


def make_verdicts(outcomes: Sequence[Outcome], several_runs: bool = False) -> list[AttackVerdict]:
    """Return a verdict a place, in the order of the outcomes.

    Args:
        outcomes: What was measured.
        several_runs: Whether the run is named in titles.
    """
    places: dict[tuple[str, str, str, str], list[Outcome]] = {}
    for each in outcomes:
        bounded = replace(
            each, clean=bound_zero(each.clean), attacked=bound_zero(each.attacked), value=bound_zero(each.value)
        )
        places.setdefault(each.place, []).append(bounded)
    found: list[AttackVerdict] = []
    for (run, victim, attack, scenario), members in places.items():
        title = f"{attack} against {victim}, {scenario}" + (f" ({run})" if several_runs else "")
        lines = [_judge_attack(members[0]), *(_judge_defense(each) for each in members if not each.bare)]
        found.append(AttackVerdict(title, tuple(members), tuple(lines)))
    return found


def _judge_attack(one: Outcome) -> VerdictLine:
    measure = f"{name_measure(one.measure, one.k)} ({one.group})"
    if one.attacked is None:
        return VerdictLine(
            Tone.unclear, "attack", "The attacked model was not measured without a defense, so nothing tells its reach."
        )
    clean, attacked = (format_interval(row, one.measure) for row in (one.clean, one.attacked))
    match judge_effect(one.clean, one.attacked):
        case Effect.above:
            words = f"The attack works. {measure} rises from {clean} to {attacked}."
            return VerdictLine(Tone.bad, "attack", words + _tell_cost(one))
        case Effect.below:
            words = f"The attack does not work. {measure} falls from {clean} to {attacked}."
        case Effect.overlap:
            words = (
                f"No effect of the attack is shown. {measure} is {clean} in the clean model and {attacked} in the "
                "attacked one, and the intervals overlap."
            )
        case Effect.unknown:
            words = f"What the attack does is not shown. {measure}: {clean} in the clean model, {attacked} attacked."
    return VerdictLine(Tone.unclear, "attack", words + _tell_cost(one))


def _judge_defense(one: Outcome) -> VerdictLine:
    """Say what a defense leaves of the attack: beside the attacked model, and beside the clean one."""
    value, clean = format_interval(one.value, one.measure), format_interval(one.clean, one.measure)
    beside_clean, beside_attacked = judge_effect(one.clean, one.value), judge_effect(one.attacked, one.value)
    worked = judge_effect(one.clean, one.attacked) == Effect.above
    tone = Tone.unclear
    if one.attacked is None:
        words = {
            Effect.above: f"{value} is left, above the clean model's {clean}.",
            Effect.overlap: f"{value} is left; the interval overlaps the clean model's {clean}.",
            Effect.below: f"{value} is left, below the clean model's {clean}.",
            Effect.unknown: f"{value} is left.",
        }[beside_clean]
        tone = Tone.bad if beside_clean == Effect.above else Tone.unclear
    elif beside_attacked == Effect.above:
        tone, words = Tone.bad, f"It makes the attack stronger: {value} is left."
    elif beside_attacked != Effect.below:
        tone = Tone.bad if worked and beside_clean == Effect.above else Tone.unclear
        words = f"No effect of the defense is shown: {value} is left."
    elif beside_clean == Effect.above:
        tone, words = Tone.bad, f"It weakens the attack, but {value} is left, above the clean model's {clean}."
    elif beside_clean == Effect.unknown:
        words = f"It weakens the attack: {value} is left."
    else:
        tone, words = Tone.good, f"It undoes the attack as far as these numbers tell: {value} is left, clean {clean}."
    return VerdictLine(tone, one.defense, words + _tell_cost(one))


def _tell_cost(one: Outcome) -> str:
    """Say what accuracy was lost against the clean model; empty if that was not measured."""
    cost, name = one.cost, name_measure(one.accuracy, one.k)
    if cost is None or cost.value is None:
        return ""
    lost = f"{cost.value:+.{one.accuracy.digits}f}"
    if cost.low is None or cost.high is None:
        return f" {lost} {name} lost, without an interval."
    ends = f"{lost} [{cost.low:+.{one.accuracy.digits}f}, {cost.high:+.{one.accuracy.digits}f}]"
    if cost.low > 0:
        return f" It costs accuracy: {ends} {name} lost."
    if cost.high < 0:
        return f" Accuracy is higher than the clean model's: {ends} {name} lost."
    return f" No cost in accuracy is shown: {ends} {name} lost."


def summarize_verdicts(verdicts: Sequence[AttackVerdict]) -> list[str]:
    """Return the headline: how many attacks work, and in how many places each defense undoes them."""
    if not verdicts:
        return ["No attack was measured in these files."]
    working = [each for each in verdicts if each.tone == Tone.bad]
    bare = [each for each in verdicts if each.outcomes[0].attacked is not None]
    words = [f"{_count(len(working), 'attack')} of {len(bare)} {'is' if len(working) == 1 else 'are'} shown to work."]
    if len(bare) < len(verdicts):
        words.append(f"{_count(len(verdicts) - len(bare), 'attack')} had no undefended model to measure.")
    shares: list[tuple[int, str]] = []
    for defense in dict.fromkeys(line.label for each in working for line in each.lines[1:]):
        tried = [line for each in working for line in each.lines[1:] if line.label == defense]
        undone = sum(line.tone == Tone.good for line in tried)
        shares.append((undone, f"{defense} {undone} of {len(tried)}"))
    if shares:
        shares.sort(key=lambda share: -share[0])
        words.append(f"Defenses undo, of those that work: {'; '.join(share for _, share in shares)}.")
    words.append("Each victim and scenario counts as one. What was checked, and what was not, stands below.")
    return words


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'s' * (number != 1)}"
