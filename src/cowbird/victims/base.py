"""The kinds of victims, as the rest of Cowbird imports them.

`model` says what every victim is. Each kind has a module: `ranking` for recommenders that rank the whole catalogue,
`pointwise` for models that say yes or no about one item, `candidates` for models that write which of some items comes
next; `answering` has what the last two share. A new kind is a module beside these, and one of its name in
`cowbird.experiments.tasks` that measures it.
"""

from cowbird.victims.answering import AnsweringRecommender, FittedAnswering, Probe
from cowbird.victims.candidates import CandidateRecommender, FittedCandidate, Picks
from cowbird.victims.fit_context import FitContext, pick_device
from cowbird.victims.model import CharacterSpan, FittedModel, TitleRewrite, TitleSplitter, Victim
from cowbird.victims.pointwise import FittedPointwise, PointwiseRecommender
from cowbird.victims.ranking import FittedRecommender, Prompt, Recommender

__all__ = [
    "AnsweringRecommender",
    "CandidateRecommender",
    "CharacterSpan",
    "FitContext",
    "FittedAnswering",
    "FittedCandidate",
    "FittedModel",
    "FittedPointwise",
    "FittedRecommender",
    "Picks",
    "PointwiseRecommender",
    "Probe",
    "Prompt",
    "Recommender",
    "TitleRewrite",
    "TitleSplitter",
    "Victim",
    "pick_device",
]
