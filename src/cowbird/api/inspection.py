"""The inspection of a model that somebody handed over, in a line."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from cowbird.data.types import Dataset
from cowbird.errors import UserError
from cowbird.experiments.field_errors import explain_errors
from cowbird.inspection.inspection import InspectionSettings, inspect_ranker
from cowbird.inspection.language.candidate_questions import ask_platform
from cowbird.inspection.language.handed import is_language_model, open_language_model
from cowbird.inspection.language.inspection import LanguageInspection, inspect_language_model
from cowbird.inspection.language.questions import TALLREC_TEMPLATE, read_questions, read_template
from cowbird.inspection.language.search import SearchProgress
from cowbird.inspection.language.settings import LanguageSettings
from cowbird.inspection.model import OpenedModel, RankingModel
from cowbird.inspection.null_models import NullSettings
from cowbird.inspection.opening import open_model
from cowbird.inspection.platform_log import align_log, load_log
from cowbird.inspection.verdict import Inspection
from cowbird.victims.fit_context import pick_device
from cowbird.victims.loaders.opening import CheckpointOptions, parse_settings

_ARGUMENTS = {"count": "nulls", "max_events": "null_events"}
"""What the arguments of `inspect_model` are called that are fields of other names."""


def inspect_model(
    model: str | Path | RankingModel,
    logs: str | Path | Dataset | None = None,
    *,
    item_ids: Sequence[str] | None = None,
    nulls: int = 5,
    null_events: int | None = None,
    level: float = 0.01,
    histories: int = 3000,
    seed: int = 0,
    settings: Sequence[str] = (),
    allow_plugins: bool = False,
    device: str = "auto",
) -> Inspection:
    """Look for planted items in a model that ranks a catalogue.

    Args:
        model: Its file, of Cowbird, RecBole, RePlay or RecTools; or `function:…` or `process:…`; or anything with
            `items` and `score(histories)`, as `cowbird.inspection.model.RankingModel`.
        logs: The platform's own interactions: a file, a folder of atomic files, a dataset or its name; `None` gives a
            ranking of items and no p-value.
        item_ids: The ids of the model's items in its order; `None` if its file has them, or the logs list them so.
        nulls: Honest models that are fitted to the logs, to compare with.
        null_events: Events of the logs that those learn from; `None` takes all on a GPU, and 60,000 on a CPU.
        level: Share of honest models that may be accused.
        histories: Histories of each kind that the model is asked about.
        seed: Decides histories and null models.
        settings: What a file of another library does not tell, such as `["heads=2"]`.
        allow_plugins: Whether `function:…` may be imported and `process:…` started, which runs their code.
        device: Where models run: `auto`, `cpu`, `cuda` or `cuda:N`.

    Returns:
        The verdict, its p-value, and the items that stand out.

    Raises:
        UserError: If the model or the logs can't be read, or do not fit each other, or a number is out of its range.
    """
    try:
        wanted = InspectionSettings(
            histories=histories, level=level, nulls=NullSettings(count=nulls, max_events=null_events), seed=seed
        )
    except ValidationError as error:
        raise UserError(
            f"The model can't be inspected so: {explain_errors(error, _ARGUMENTS)}", "See cowbird.inspect_model."
        ) from None
    place = pick_device(device)
    if isinstance(model, str | Path):
        if is_language_model(Path(model)):
            raise UserError(
                f"'{model}' is a language model or adapter, and ranks no catalogue.", "Use inspect_adapter."
            )
        options = CheckpointOptions(settings=parse_settings(settings))
        opened = open_model(model, place, options, allow_plugins)
    else:
        opened = OpenedModel(model, f"model of class {type(model).__name__}", "")
    log = None
    if logs is not None:
        data = logs if isinstance(logs, Dataset) else load_log(str(logs))
        ids = opened.item_ids if item_ids is None else tuple(item_ids)
        log = align_log(data, opened.model.items, ids)
    return inspect_ranker(opened, log, wanted, place)


def inspect_adapter(
    model: str | Path,
    logs: str | Path | Dataset | None = None,
    *,
    questions: str | Path | None = None,
    base: str | None = None,
    layers: int | None = None,
    template: str = TALLREC_TEMPLATE,
    history: int = 10,
    noun: str = "movie",
    settings: LanguageSettings | None = None,
    device: str = "auto",
    told: SearchProgress = lambda what, done, total, remark: None,
) -> LanguageInspection:
    """Look for planted triggers in a language model or adapter that recommends by titles.

    Args:
        model: Its folder, as Cowbird, peft or transformers saved it.
        logs: The platform's own interactions, with titles, and ratings for yes or no: a file, a folder, a dataset or
            its name.
        questions: Written questions instead of logs; see `cowbird.inspection.language.questions.read_questions`.
        base: The language model that an adapter was tuned from; what Cowbird saved tells it.
        layers: Layers of the base that were kept, if it was cut.
        template: `tallrec`, `llara`, or a text file with `{history}` and `{title}` or `{candidates}`.
        history: Events of the logs before each question.
        noun: What the items are, in TALLRec's prompt.
        settings: What is tried, and how null tunings are made.
        device: Where models run: `auto`, `cpu`, `cuda` or `cuda:N`.
        told: Told of progress.

    Returns:
        The verdict, its p-value, and the fragments that stand out, with their success rates on held-out questions.

    Raises:
        UserError: If the model or the questions can't be read.
    """
    place, prompt = pick_device(device), read_template(template, noun)
    if (logs is None) == (questions is None):
        raise UserError("A language model is asked your own questions.", "Give either logs or questions.")
    if not is_language_model(Path(model)):
        raise UserError(f"'{model}' is no folder of a language model or adapter.", "Use inspect_model for rankers.")
    if questions is not None:
        asked = read_questions(Path(questions), prompt)
    else:
        asked = ask_platform(logs if isinstance(logs, Dataset) else load_log(str(logs)), prompt, history)
    handed = open_language_model(Path(model), place, base, layers)
    return inspect_language_model(handed, asked, settings, place, told)
