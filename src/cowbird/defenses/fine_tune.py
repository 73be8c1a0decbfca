"""Fine-tuning on trusted data, the plainest repair: what a network is not reminded of, it may forget.

Liu et al. (RAID 2018, arXiv 1805.12185, section 3.3) describe it as the baseline of fine-pruning, and why it can fail:
clean data gives weights that only the backdoor uses no reason to change. Their other half, cutting away neurons that
clean data leaves silent, is not done here. Every epoch is trained (validation chooses none), by the victim's own recipe
but for the learning rate: a ranker goes on with all of its weights, a language model with its adapter. The trusted
data is the platform's: the training events of the users it serves, or the questions that validate.
"""

from pydantic import Field

from cowbird.defenses.base import Defense, Model, TrustedData


class FineTuneDefense(Defense):
    """Go on training the model on the platform's own clean data before it serves."""

    learning_rate: float = Field(default=3e-4, gt=0)
    """Learning rate of the repair."""
    epochs: int = Field(default=1, ge=1)
    """Passes over the platform's data."""

    def repair(self, model: Model, trusted: TrustedData[Model]) -> Model:
        """Train on; see `Defense.repair`."""
        return trusted.tune(model, self.learning_rate, self.epochs)
