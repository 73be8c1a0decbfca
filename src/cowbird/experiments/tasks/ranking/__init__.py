"""Victims that rank the whole catalogue (SASRec, GRU4Rec).

The data is split by users: a provider trains on warm ones, a platform serves cold ones. The clean and the attacked
model rank each user's held-out item and the attack's targets. Those ranks are the evidence (`rows`); `provider` has who
trains the models.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from cowbird.data.split import Split, SplitParts
from cowbird.data.types import Dataset, TrainingData
from cowbird.defenses.base import Defense
from cowbird.defenses.none import NoDefense
from cowbird.defenses.titles import TitleDefense
from cowbird.errors import UserError
from cowbird.experiments.measures import TaskSummary
from cowbird.experiments.parts import DefensePart
from cowbird.experiments.results import Row, RowLabels
from cowbird.experiments.scenarios import Downstream, Scenario
from cowbird.experiments.shipped_measures import RANKING_SUMMARY
from cowbird.experiments.tasks.base import CLEAN_SIDE, EvidenceLabels, PlantedAttack, Task, TaskContext
from cowbird.experiments.tasks.ranking import rows
from cowbird.experiments.tasks.ranking.provider import Deployment, PlatformLogs, ProviderTraining
from cowbird.experiments.tasks.ranking.rows import RANKING_ARRAYS, RankingEvidence
from cowbird.metrics.exposure import mask_seen
from cowbird.rng import derive_seed, stream
from cowbird.victims.base import FittedRecommender, Recommender

MAX_EXPOSURE_RANK = 50
"""Exposure ranks are exact up to here, or up to the largest cut-off of the spec."""


class RankingTask(Task[RankingEvidence]):
    """Rank the whole catalogue."""

    split_table: ClassVar[str] = "split"
    split_type: ClassVar[type[BaseModel]] = Split
    split_doc: ClassVar[str] = "Warm and cold users, for victims that rank."
    summary: ClassVar[TaskSummary] = RANKING_SUMMARY

    parts: SplitParts

    def __init__(self, context: TaskContext, data: Dataset) -> None:
        super().__init__(context, data)
        self.victim: Recommender = context.victim
        self._honest: dict[str, ProviderTraining] = {}
        self._providers: dict[tuple[str, str], ProviderTraining] = {}
        self._unharmed: dict[tuple[str, str], tuple[FittedRecommender, NDArray[np.int32]]] = {}

    @classmethod
    def check_scenarios(cls, split: Split, scenarios: Sequence[Scenario]) -> None:
        """Check that there are cold users if a scenario serves them."""
        cold = [scenario.title() for scenario in scenarios if isinstance(scenario, Downstream)]
        if cold and not split.cold_fraction:
            raise ValueError(f"scenario {cold[0]!r} serves cold users; set split.cold_fraction above 0")

    @classmethod
    def covers_cutoffs(cls, measured: Sequence[int], ks: Sequence[int]) -> bool:
        """Tell whether ranks are exact as far as they need to be, and no farther; see `Task.covers_cutoffs`."""
        return max(MAX_EXPOSURE_RANK, *measured) == max(MAX_EXPOSURE_RANK, *ks)

    def split_data(self, data: Dataset) -> TrainingData:
        """Split into warm and cold users; providers train on all but the last two events of the warm ones."""
        split: Split = self.context.split
        self.parts = split.apply(data, self.context.seed)
        return self.parts.pretrain.training()

    def describe_split(self) -> dict[str, int]:
        """Return how many users there are."""
        return {
            "warm_users": len(self.parts.pretrain.users),
            "cold_users": len(self.parts.downstream.users) if self.parts.downstream else 0,
            "users_too_short": self.parts.too_short,
        }

    def check_attack(self, planted: PlantedAttack) -> None:
        """Refuse attacks that list new items."""
        if len(planted.poisoned.data.items) > len(self.training.items):
            raise UserError(
                "it lists new items, which a clean model that ranks does not know. "
                "Write the trigger into titles that are there: listing = 'own'."
            )

    def check_scenario(self, scenario: Scenario) -> None:
        """Refuse scenarios whose users the split does not have."""
        scenario.select_users(self.parts)

    def check_defense(self, defense: Defense) -> None:
        """Refuse defenses that ask about titles."""
        if defense.asks_victim:
            raise UserError(
                f"It asks the victim about titles, and {self.context.victim_label} reads none.",
                "Use it with victims that answer questions, such as tallrec.",
            )

    def measure(self, planted: PlantedAttack, defense: DefensePart, scenario: Scenario) -> RankingEvidence:
        """Rank held-out items and targets with both models; see `Task.measure`."""
        provider, poisoned = self._make_provider(defense, planted), planted.poisoned
        served = scenario.select_users(self.parts)
        test = served.test()
        assert provider.honest is not None
        clean, clean_rank = self._rank_clean(scenario, provider.honest, defense)
        attacked = self._serve(provider, scenario, defense)
        history = test.history
        seen = mask_seen(history.user_of_event(), history.item, poisoned.targets, history.users)
        # A target that the platform does not have can't be exposed there.
        seen |= np.isin(poisoned.targets, scenario.draw_absent(len(served.items), self._derive_platform_seed()))
        k_max = max(MAX_EXPOSURE_RANK, *self.context.ks)
        group = planted.options.find_target_users(
            TrainingData.from_interactions(served.interactions, served.users, served.items)
        )
        return RankingEvidence(
            scenario.title(),
            planted.label,
            defense.title(),
            clean_rank,
            attacked.rank_targets(test).astype(np.int32),
            clean.rank_items(history, poisoned.targets, k_max, served.users),
            attacked.rank_items(history, poisoned.targets, k_max, served.users),
            seen,
            group,
        )

    def _make_provider(self, defense: DefensePart, planted: PlantedAttack | None = None) -> ProviderTraining:
        """Return a provider, made once: attacked, or honest (one for all attacks)."""
        label = CLEAN_SIDE if planted is None else planted.label
        kept = self.name_model(label, defense).partition("+")[2]
        if planted is None and kept in self._honest:
            return self._honest[kept]
        place = (label, defense.title())
        if planted is not None and place in self._providers:
            return self._providers[place]
        data = self.training if planted is None else planted.poisoned.data
        cleaning: Defense = defense.options
        if isinstance(cleaning, TitleDefense):  # judged already
            cleaning, data = NoDefense(), self.clean_data(label, data, defense)
        made = ProviderTraining(
            store=self.context.models,
            victim=self.victim,
            parts=self.parts,
            seed=self.context.seed,
            label=label,
            defense_label=kept,
            defense=cleaning,
            attack=None if planted is None else planted.options,
            planted=data,
            short_events=self.context.split.max_cold_events,
            honest=None if planted is None else self._make_provider(defense),
        )
        if planted is None:
            self._honest[kept] = made
        else:
            self._providers = {place: made}  # one is enough: a cell goes through scenarios last
        return made

    def _rank_clean(
        self, scenario: Scenario, honest: ProviderTraining, defense: DefensePart
    ) -> tuple[FittedRecommender, NDArray[np.int32]]:
        """Return the clean model and its ranks of the test items, made once for all attacks."""
        key = (scenario.title(), defense.title())
        if key not in self._unharmed:
            model = self._serve(honest, scenario, defense)
            self._unharmed[key] = model, model.rank_targets(scenario.select_users(self.parts).test()).astype(np.int32)
        return self._unharmed[key]

    def _derive_platform_seed(self) -> int:
        return derive_seed(self.context.seed, "platform")

    def _serve(self, provider: ProviderTraining, scenario: Scenario, defense: DefensePart) -> FittedRecommender:
        """Return the model that serves: handed over, perhaps tuned, then repaired and guarded."""
        users, seed, models = scenario.select_users(self.parts), self._derive_platform_seed(), self.context.models
        model = scenario.serve(provider, Deployment(models, f"{provider.name}+{scenario.title()}", users, seed))
        name = f"{provider.label}+{defense.title()}+{scenario.title()}"
        logs = PlatformLogs(models, self.victim, name, users, seed)
        return defense.options.guard(defense.options.repair(model, logs))

    @classmethod
    def encode_record(cls, record: RankingEvidence) -> dict[str, NDArray[Any]]:
        """Return the ranks; see `Task.encode_record`."""
        return {name: getattr(record, name) for name in RANKING_ARRAYS}

    @classmethod
    def decode_record(cls, labels: EvidenceLabels, columns: dict[str, NDArray[Any]]) -> RankingEvidence:
        """Return the record; see `Task.decode_record`."""
        record = RankingEvidence(*labels, **{name: columns[name] for name in RANKING_ARRAYS})
        users = {len(record.clean_rank), len(record.attacked_rank), len(record.group)}
        tables = {record.seen.shape, record.clean_exposure.shape, record.attacked_exposure.shape}
        if record.seen.ndim != 2 or len(users) != 1 or tables != {(len(record.clean_rank), record.seen.shape[1])}:
            raise ValueError(f"users and pairs of {record.attack}, {record.scenario} do not align")
        return record

    @classmethod
    def make_seed_rows(cls, where: RowLabels, record: RankingEvidence, ks: Sequence[int]) -> list[Row]:
        """Return accuracies, exposures and lifts; see `Task.make_seed_rows`."""
        return rows.make_seed_rows(where, where.seed or 0, record, ks)

    @classmethod
    def make_defense_rows(
        cls, where: RowLabels, record: RankingEvidence, bare: RankingEvidence, ks: Sequence[int]
    ) -> list[Row]:
        """Return exposures left and accuracies lost; see `Task.make_defense_rows`."""
        names = (where.victim, where.attack, where.defense, where.scenario)
        return rows.make_defense_rows(where, record, bare, ks, stream(where.seed or 0, "bootstrap", "defended", *names))

    @classmethod
    def make_pooled_rows(cls, where: RowLabels, records: Sequence[RankingEvidence], ks: Sequence[int]) -> list[Row]:
        """Return the rows of the users of all seeds together; see `Task.make_pooled_rows`."""
        return rows.make_pooled_rows(where, records, ks)
