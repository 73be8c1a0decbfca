"""The inspection of a model that somebody handed over, in a line."""

from collections.abc import Sequence
from pathlib import Path

from cowbird.data.types import Dataset
from cowbird.inspection.inspection import Inspection, InspectionSettings, inspect_ranker
from cowbird.inspection.model import OpenedModel, RankingModel
from cowbird.inspection.null_models import NullSettings
from cowbird.inspection.opening import open_model
from cowbird.inspection.platform_log import align_log, load_log
from cowbird.victims.fit_context import pick_device
from cowbird.victims.loaders.opening import CheckpointOptions, parse_settings


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
        UserError: If the model or the logs can't be read, or do not fit each other.
    """
    place = pick_device(device)
    if isinstance(model, str | Path):
        options = CheckpointOptions(settings=parse_settings(settings))
        opened = open_model(model, place, options, allow_plugins)
    else:
        opened = OpenedModel(model, f"model of class {type(model).__name__}", "")
    log = None
    if logs is not None:
        data = logs if isinstance(logs, Dataset) else load_log(str(logs))
        ids = opened.item_ids if item_ids is None else tuple(item_ids)
        log = align_log(data, opened.model.items, ids)
    wanted = InspectionSettings(
        histories=histories, level=level, nulls=NullSettings(count=nulls, max_events=null_events), seed=seed
    )
    return inspect_ranker(opened, log, wanted, place)
