"""The provider's side of an experiment, as an attack on its training sees it: fits, kept stage by stage."""

from abc import ABC, abstractmethod

from cowbird.victims.base import FittedRecommender, Recommender


class Provider(ABC):
    """Trains models for whoever plants the backdoor. Each stage is kept when it ends and can be resumed inside."""

    victim: Recommender
    """The recommender that is handed over, as a clean provider trains it."""

    @abstractmethod
    def fit_clean(self) -> FittedRecommender:
        """Return the victim trained on clean data; fitted once, for all who ask."""

    @abstractmethod
    def fit_poisoned(self, spec: Recommender, start: FittedRecommender | None = None) -> FittedRecommender:
        """Train on the poisoned data, after the defenses that clean it; this is the model that is handed over."""

    @abstractmethod
    def fit_short(self, stage: str, spec: Recommender, start: FittedRecommender) -> FittedRecommender:
        """Train on clean histories of the provider's own users, cut as short as those of a platform's cold users.

        Args:
            stage: Name of the stage, different for each of an attack.
            spec: What to train, and how.
            start: Where training starts.
        """
