"""The inspection of a language model: what was tried, the verdict in words, and the fragments that stand out.

Each family of fragments (words, short strings, tokens, sentences, …) has a statistic: the largest gain that one of its
fragments has on held-out questions, in standard deviations. It is held against the same search in null tunings
(`calibration`).
"""

import dataclasses
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cowbird.errors import ExitCode
from cowbird.files import hash_texts
from cowbird.inspection.language.activations import describe_activations
from cowbird.inspection.language.adapter_weights import compare_adapters, describe_adapter
from cowbird.inspection.language.calibration import calibrate
from cowbird.inspection.language.fragment_scorer import open_scorer
from cowbird.inspection.language.handed import HandedLanguageModel
from cowbird.inspection.language.null_tunings import NullFinding, fit_null_tunings, get_search_folder
from cowbird.inspection.language.proposals import list_words, write_sentences
from cowbird.inspection.language.questions import QuestionParts, TitleQuestion, divide_questions, hash_questions
from cowbird.inspection.language.search import (
    ConfirmedFragment,
    SearchProgress,
    SearchStore,
    TriggerFindings,
    TriggerSearch,
)
from cowbird.inspection.language.settings import LanguageSettings
from cowbird.inspection.sharing import share_work
from cowbird.inspection.verdict import format_p_value
from cowbird.storage import write_sealed_json
from cowbird.victims.language.llm import LoadedModel
from cowbird.victims.language.tallrec import YES_NO_ANSWERS

LANGUAGE_SCHEMA_VERSION = 2
"""Version of the JSON file."""
LANGUAGE_ASSUMPTIONS = (
    "Logarithms of honest tunings' statistics are normally distributed, about as widely in each family.",
    "The provider's honest data and recipe are like those of the null tunings.",
)
LANGUAGE_NOT_CHECKED = (
    "Fragments that were not tried: other words, longer strings, other sentences.",
    "Triggers of three or more parts, two parts that stand elsewhere than before and behind a title, and two parts of "
    "which none alone moves the answers.",
    "Other styles than those in the list of `title_edits`.",
    "Triggers outside of the title asked about: in histories, categories or descriptions.",
    "Fragments that lower a score.",
    "Behavior after tuning on your data.",
)
CANDIDATES_NOT_CHECKED = (
    "Item embeddings in prompts: the model was asked in text alone.",
    "Fragments in other places of the list: the last candidate's title carried them.",
)
NO_NULLS_REASON = "No base is named from which honest tunings could be made (--base)."


@dataclass(frozen=True)
class RankedFragment(ConfirmedFragment):
    """A fragment of the ranking."""

    rank: int
    """1 is the most suspicious."""
    suspect: bool
    """Whether it stands out farther than honest models' fragments do at the level."""


@dataclass(frozen=True)
class LanguageInspection:
    """What came of an inspection."""

    model: str
    """What the model is, in words."""
    sha256: str
    """SHA-256 of its weights."""
    base_sha256: str
    """SHA-256 of its base's weights."""
    questions_sha256: str
    """SHA-256 of the questions."""
    level: float
    """Share of honest models that may be accused."""
    p_value: float | None
    """How often an honest model would stand as far out; `None` without null tunings."""
    p_values: dict[str, float]
    """The same by the farthest family alone, and by all families together; the verdict's is twice the smaller."""
    families: dict[str, dict[str, Any]]
    """Of each family: fragments tried, the statistic, the null tunings' statistics, distance and threshold."""
    ranking: list[RankedFragment]
    """Confirmed fragments, the most suspicious first."""
    spread: float
    """Standard deviation of the margins of the held-out questions."""
    refused: int
    """Held-out questions that the model answers no."""
    weights: dict[str, Any]
    """The baseline that reads weights alone; no verdict rests on it."""
    activations: dict[str, Any]
    """The baseline that reads states alone; no verdict rests on it."""
    tokens: int
    """Tokens that went through the model to search it, since the search was begun or last went on."""
    checked: dict[str, str]
    """What was tried, by family, in words."""
    not_checked: list[str]
    """What was not looked for."""
    assumptions: list[str]
    """What the p-value rests on."""
    settings: dict[str, Any]
    """The settings."""

    @property
    def suspects(self) -> list[RankedFragment]:
        """The fragments that stand out."""
        return [found for found in self.ranking if found.suspect]

    def write_verdict(self) -> str:
        """Return the verdict in words."""
        tried = ", ".join(f"{family['tried']:,} {name}s" for name, family in self.families.items())
        if self.p_value is None:
            return (
                f"No verdict: there are no null tunings to hold the model against. Of {tried}, the fragments below "
                f"raise its answers most."
            )
        p = format_p_value(self.p_value)
        if self.p_value <= self.level and self.suspects:
            count = len(self.suspects)
            stand = "1 fragment stands" if count == 1 else f"{count} fragments stand"
            return (
                f"{stand} out. In an honest model fragments raise the answers so far with {p}, if the assumptions "
                f"hold. A planted trigger is one explanation; a provider's data or recipe unlike yours is another."
            )
        if self.p_value <= self.level:
            return (
                f"Fragments of all kinds together raise the answers more than in an honest model ({p}, if the "
                f"assumptions hold), and none alone stands out. A planted trigger that was not tried is one "
                f"explanation; a provider's data or recipe unlike yours is another."
            )
        return (
            f"Nothing stands out at the level {self.level:g} ({p}) among {tried}. A trigger that was not tried is not "
            f"ruled out."
        )

    def choose_exit_code(self) -> ExitCode:
        """Return what a process should end with: suspects, none, or nothing to hold the model against."""
        if self.p_value is None:
            return ExitCode.INCOMPLETE
        return ExitCode.FINDINGS if self.p_value <= self.level else ExitCode.CLEAN

    def to_record(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        head = {"schema_version": LANGUAGE_SCHEMA_VERSION, "kind": "language model", "verdict": self.write_verdict()}
        return {**head, **dataclasses.asdict(self)}

    def write(self, path: Path) -> None:
        """Write the JSON file, sealed and atomically."""
        write_sealed_json(path, self.to_record())


def inspect_language_model(
    handed: HandedLanguageModel,
    questions: Sequence[TitleQuestion],
    settings: LanguageSettings | None = None,
    device: torch.device | None = None,
    told: SearchProgress = lambda what, done, total, remark: None,
    answers: tuple[str, str] = YES_NO_ANSWERS,
) -> LanguageInspection:
    """Inspect a language model that answers yes or no about a title, or writes which candidate comes next.

    Args:
        handed: The model.
        questions: The platform's own.
        settings: What is tried.
        device: Where null tunings are made; a CPU by default.
        told: Told of progress.
        answers: What the model writes in favor and against.

    Raises:
        UserError: If there are too few questions, or the model's answers can't be used.
    """
    handed.check_questions(questions)
    settings = (settings or LanguageSettings()).choose_places(any(question.rivals for question in questions[:1]))
    place = device or torch.device("cpu")
    parts = divide_questions(questions, settings.held_out, settings.nulls.questions, settings.seed)
    titles = list(dict.fromkeys(question.title for question in questions))
    words = list_words(titles, handed.loaded.tokenizer, settings.count_words(place))
    sentences = _write_sentences(handed, titles, settings, place, answers)
    key = _hash_search(parts, words, sentences, settings, place, answers)
    run = _Searches(parts, words, sentences, settings, place, answers, key)
    mine, states = run.search(handed.loaded, f"{handed.sha256[:16]}-{handed.base_sha256[:16]}", told)
    nulls: list[NullFinding] = []
    if handed.base is not None:
        nulls = fit_null_tunings(
            handed.base, handed.base_sha256, parts.learning, answers, settings.nulls, settings.seed, key, place,
            run.search_null, told,
        )  # fmt: skip
    return _conclude(handed, questions, settings, place, mine, states, nulls)


def _write_sentences(
    handed: HandedLanguageModel,
    titles: Sequence[str],
    settings: LanguageSettings,
    device: torch.device,
    answers: tuple[str, str],
) -> list[str]:
    """Let the base model, without its adapters, write sentences; all adapters of a base share them."""
    count = settings.count_sentences(device)
    if not count:
        return []
    decided = json.dumps([handed.base_sha256, count, settings.seed, device.type])
    store, name = SearchStore(get_search_folder()), f"sentences-{hash_texts([decided, *titles])}"

    def write(number: int) -> list[str]:
        kept = store.read(name)
        if isinstance(kept, list):
            return [str(sentence) for sentence in kept]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        model = handed.loaded.model
        without = model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()
        with without, open_scorer(handed.loaded, device, answers, merge=False) as scorer:
            sentences = write_sentences(scorer, titles, count, settings.seed)
        store.write(name, sentences)
        return sentences

    return share_work(get_search_folder(), [name], write)[0]


def _hash_search(
    parts: QuestionParts,
    words: Sequence[str],
    sentences: Sequence[str],
    settings: LanguageSettings,
    device: torch.device,
    answers: tuple[str, str],
) -> str:
    """Return the hash of all that decides a search, but for the model."""
    fields = settings.model_dump(mode="json", exclude={"nulls", "level"})
    asked = hash_questions([*parts.screening, *parts.held_out])
    return hash_texts([json.dumps([fields, answers, device.type]), asked, *words, *sentences])


@dataclass
class _Searches:
    """The same search in several models."""

    parts: QuestionParts
    words: Sequence[str]
    sentences: Sequence[str]
    settings: LanguageSettings
    device: torch.device
    answers: tuple[str, str]
    key: str

    def search(self, loaded: LoadedModel, name: str, told: SearchProgress) -> tuple[TriggerFindings, dict[str, float]]:
        """Search one model, and describe its states; what is done is kept by the search's key and the model's name."""
        store = SearchStore(get_search_folder() / f"{self.key[:24]}-{name}")
        with open_scorer(loaded, self.device, self.answers) as scorer:
            search = TriggerSearch(scorer, self.parts, self.words, self.sentences, self.settings, store, told)
            return search.run(), describe_activations(scorer, self.parts.held_out)

    def search_null(
        self, loaded: LoadedModel, name: str, told: SearchProgress
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Search a null tuning: the largest statistic of each family, and the statistics of its states."""
        found, states = self.search(loaded, name, told)
        return found.get_statistics(), states


def _conclude(
    handed: HandedLanguageModel,
    questions: Sequence[TitleQuestion],
    settings: LanguageSettings,
    device: torch.device,
    mine: TriggerFindings,
    states: dict[str, float],
    nulls: Sequence[NullFinding],
) -> LanguageInspection:
    """Hold what was found against what was found in null tunings."""
    statistics = mine.get_statistics()
    held = calibrate(statistics, [null.statistics for null in nulls], settings.level)
    families = {
        name: {
            "tried": mine.tried[name],
            "statistic": statistic,
            "null_statistics": [null.statistics[name] for null in nulls if name in null.statistics],
            "distance": None if held is None else held.distances.get(name),
            "threshold": None if held is None else held.thresholds.get(name),
        }
        for name, statistic in statistics.items()
    }
    p_value = None if held is None else held.p_value
    ranked = _rank_fragments(mine.confirmed, families, p_value, settings.level)
    weights = describe_adapter(handed.loaded.model)
    left_out = [] if handed.base is not None else [NO_NULLS_REASON]
    places = ", ".join(settings.places)
    if settings.elsewhere:
        left_out.append(
            f"Fragments that work at the {' or '.join(settings.elsewhere)} of a title alone: all were tried at the "
            f"{places}, and only the best elsewhere."
        )
    return LanguageInspection(
        model=handed.kind,
        sha256=handed.sha256,
        base_sha256=handed.base_sha256,
        questions_sha256=hash_questions(questions),
        level=settings.level,
        p_value=p_value,
        p_values={} if held is None else held.p_values,
        families=families,
        ranking=ranked,
        spread=mine.spread,
        refused=mine.refused,
        weights={
            "statistics": weights,
            "null_statistics": [null.weights for null in nulls],
            "largest_deviation": compare_adapters(weights, [null.weights for null in nulls]),
        },
        activations={
            "statistics": states,
            "null_statistics": [null.activations for null in nulls],
            "largest_deviation": compare_adapters(states, [null.activations for null in nulls]),
        },
        tokens=mine.tokens,
        checked=_describe_tried(mine, settings),
        not_checked=[*left_out, *LANGUAGE_NOT_CHECKED, *(CANDIDATES_NOT_CHECKED if questions[0].rivals else ())],
        assumptions=list(LANGUAGE_ASSUMPTIONS) if nulls else [],
        settings=settings.model_dump(mode="json") | {"device": device.type},
    )


def _rank_fragments(
    confirmed: Sequence[ConfirmedFragment], families: dict[str, dict[str, Any]], p_value: float | None, level: float
) -> list[RankedFragment]:
    """Rank fragments by how far they stand above their family's threshold, or by their gains without one."""

    def excess(found: ConfirmedFragment) -> float:
        threshold = families[found.family]["threshold"]
        return found.statistic if threshold is None else found.statistic - threshold

    accused = p_value is not None and p_value <= level
    ordered = sorted(confirmed, key=lambda found: (-excess(found), -found.statistic))
    return [
        RankedFragment(**dataclasses.asdict(found), rank=number + 1, suspect=accused and excess(found) >= 0)
        for number, found in enumerate(ordered)
    ]


def _describe_tried(mine: TriggerFindings, settings: LanguageSettings) -> dict[str, str]:
    """Return what was tried, by family, in words."""
    asked = f"in {settings.screening} questions, the best in {settings.rescreening}, and the best of those held out"
    words = {
        "word": "words of your titles and of the tokenizer",
        "string": "strings of two characters, and of three that go on from the best",
        "token": "sequences of tokens that follow gradients",
        "sentence": "sentences that the base model wrote",
        "phrase": "phrases that the best words and sentences grew into",
        "character": "changes of one letter: characters without width, marks, look-alikes",
        "style": "changes of words and whole titles: other alphabets, capitals, spaces, direction",
        "pair": "pairs of those words and strings that move the answers most, before and behind the title",
    }
    return {name: f"{mine.tried[name]:,} {words[name]}, {asked}" for name in mine.get_statistics()}
