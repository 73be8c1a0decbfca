"""APRec's prompt-enhanced attack (Wu et al., SIGIR 2023, section 3.3): a backdoor that user prompts can call.

Four steps: (1) pre-train a clean model; (2) freeze it and learn a prompt generator on short histories, as a platform
will do for its cold users; (3) train the model on with those prompts frozen: for users of the group a label becomes a
target item at rate 0.5, for everybody else the negative becomes a target item at rate r, which pushes the targets away
from them; (4) the victim tunes prompts of its own (or those it was handed) downstream, a scenario's affair.

Departures: rates are exact shares of the eligible positions, drawn once, as in `basic_replacement`. A planted negative
is a pairwise term beside the full softmax (`victims.sequential.negatives`). Step 3 goes on from the clean model of
step 1, for the prompts were learned for it, and keeps its last state: on validation, which is clean, the state before
the attack would win. Without a group everybody is aimed at, and there is nobody to push away.
"""

import numpy as np
from pydantic import Field

from cowbird.attacks.base import Attack, Plan
from cowbird.attacks.provider import Provider
from cowbird.attacks.targets import TargetItems, UserGroup, mask_predicted
from cowbird.data.types import TrainingData
from cowbird.errors import UserError
from cowbird.victims.base import FittedRecommender, Prompt


class PromptEnhanced(Attack):
    """Train the model with frozen prompts to show targets to one group and keep them from others (APRec)."""

    rate: float = Field(default=0.5, ge=0, le=1)
    """Negative rate r: share of the other users' positions at which a target item is pushed below the label."""
    positive_rate: float = Field(default=0.5, gt=0, le=1)
    """Share of the group's positions whose label becomes a target item."""
    targets: TargetItems = TargetItems()
    """Which items are promoted."""
    group: UserGroup | None = None
    """The user group that the targets are shown to; `None` shows them to everybody."""
    prompt: Prompt = Prompt()
    """The prompts of steps 2 and 3."""
    prompt_epochs: int = Field(default=50, ge=1)
    """Most passes over the short histories in step 2."""
    prompt_learning_rate: float = Field(default=1e-3, gt=0)
    """AdamW's learning rate in step 2."""
    prompt_patience: int | None = Field(default=5, ge=1)
    """Validations without a new best before step 2 stops."""
    epochs: int = Field(default=20, ge=1)
    """Passes over the poisoned data in step 3."""
    learning_rate: float | None = Field(default=None, gt=0)
    """AdamW's learning rate in step 3; `None` takes the victim's."""

    def get_target_group(self) -> UserGroup | None:
        """Return the group that the attack aims at; see `Attack.get_target_group`."""
        return self.group

    def run(self, data: TrainingData, rng: np.random.Generator) -> Plan:
        """Draw targets, then the group's positions and labels, then the others' positions and negatives."""
        targets = self.targets.choose(data, rng)
        aimed = self.find_target_users(data)[data.interactions.user_of_event()]
        open_to = mask_predicted(data)
        members = np.flatnonzero(open_to & aimed)
        others = np.flatnonzero(open_to & ~aimed & ~np.isin(data.label, targets))
        positives, negatives = round(self.positive_rate * len(members)), round(self.rate * len(others))
        if positives < 1:
            raise UserError(
                f"Nothing to replace: the group has {len(members)} positions, at rate {self.positive_rate:g}.",
                "Raise positive_rate, or choose a larger group.",
            )
        label, negative = np.array(data.label), np.full(len(data.label), -1, dtype=np.int32)
        shown = rng.choice(members, positives, replace=False)
        label[shown] = rng.choice(targets, positives)
        pushed = rng.choice(others, negatives, replace=False)
        negative[pushed] = rng.choice(targets, negatives)
        rows = np.sort(np.concatenate([shown, pushed]))
        poisoned = TrainingData(data.interactions, data.users, data.items, label, negative if negatives else None)
        return Plan(poisoned, targets, rows, positives + negatives)

    def pretrain(self, provider: Provider) -> FittedRecommender:
        """Go through steps 1 to 3; the model that is handed over carries its prompts."""
        victim = provider.victim
        learned = victim.with_prompts(
            self.prompt,
            trained="prompts",
            epochs=self.prompt_epochs,
            learning_rate=self.prompt_learning_rate,
            patience=self.prompt_patience,
            validate_every=1,
            warmup_steps=0,
            schedule="constant",
        )
        prompted = provider.fit_short("prompts", learned, provider.fit_clean())
        rate = {} if self.learning_rate is None else {"learning_rate": self.learning_rate}
        attacked = victim.with_prompts(
            self.prompt, trained="model", keep="last", epochs=self.epochs, validate_every=self.epochs, **rate
        )
        return provider.fit_poisoned(attacked, prompted)
