"""The trigger augmentation agent: it writes triggers that the scanner is taught with (P-Scanner, arXiv 2504.11182).

In the paper a large language model writes triggers for the domain, learns which ones the scanner caught and which it
missed, and writes harder ones, round after round. `OpenAIAgent` is that agent, with any model behind an
OpenAI-compatible server.

Departures. `EmbeddedAgent` needs no server: it draws from families of triggers, then evolves those that were missed,
with a small language model at hand if there is one; it is repeatable, and so what experiments use by default. An agent
can be forbidden whole families, so that a scanner can be measured on triggers that it was not taught with. The paper's
triggers are texts; here they are ways to write words as well. Titles and answers are both taken for hostile.
"""

import math
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, StringConstraints

from cowbird.defenses._reading import open_model
from cowbird.defenses.p_scanner.triggers import _openai, agent_prompts, local_agent
from cowbird.defenses.p_scanner.triggers.agent_server import (
    OPENAI_URL,
    SERVER_FIELDS,
    AgentServer,
    find_log,
    make_agent_server,
    read_agent_server,
)
from cowbird.defenses.p_scanner.triggers.proposal_filter import (
    check_proposal,
    identify_recipe,
    is_near,
    list_plain_titles,
)
from cowbird.defenses.p_scanner.triggers.trigger_families import MAX_RECIPE_LENGTH, TRIGGER_FAMILIES, Recipe
from cowbird.errors import OutageError
from cowbird.text import quote_json
from cowbird.victims.language.llm import Llm

DRAWS_PER_RECIPE = 30
"""Times as many draws as are wanted, after which no more are made: a small family is soon exhausted."""
FLOOR = 0.05
"""Least weight of a trigger or family; one that the scanner always catches is still tried at times."""


class RecipeOutcome(BaseModel):
    """What became of a trigger in an earlier round."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    recipe: Recipe
    """The trigger."""
    rate: float = Field(ge=0, le=1)
    """Share of titles with it that the scanner caught."""


class Brief(BaseModel):
    """What an agent is told."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    titles: tuple[str, ...]
    """Some of the catalogue's titles, any texts; some may carry an attacker's trigger."""
    wanted: int = Field(ge=0)
    """How many triggers are wanted."""
    outcomes: tuple[RecipeOutcome, ...] = ()
    """Those of earlier rounds, newest last; of one trigger the newest counts."""
    without: tuple[str, ...] = ()
    """Families that must not be proposed."""

    def rates(self) -> dict[Recipe, float]:
        """Return the newest rate of each earlier trigger."""
        newest = {identify_recipe(outcome.recipe): outcome for outcome in self.outcomes}
        return {outcome.recipe: outcome.rate for outcome in newest.values()}


@dataclass(frozen=True, slots=True)
class Proposals:
    """What an agent proposes."""

    recipes: tuple[Recipe, ...]
    """Triggers, distinct and new, at most as many as were wanted."""
    refused: tuple[str, ...] = ()
    """Why answers of a model were not taken; texts in them are quoted and escaped."""


class Agent(BaseModel, ABC):
    """Proposes triggers."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @abstractmethod
    def propose(self, brief: Brief, rng: np.random.Generator) -> Proposals:
        """Propose triggers for the next round.

        Args:
            brief: The catalogue's titles, what is wanted, and what became of earlier triggers.
            rng: All that is drawn.

        Raises:
            UserError: If a model that is needed can't be used.
        """


class _Basket:
    """Recipes that are taken: new, distinct, and not too many of one family.

    Args:
        brief: What is wanted and known.
        families: Those that may be proposed.
    """

    def __init__(self, brief: Brief, families: list[str]) -> None:
        self.wanted, self.most = brief.wanted, max(math.ceil(brief.wanted / 3), math.ceil(brief.wanted / len(families)))
        self.known = {identify_recipe(outcome.recipe) for outcome in brief.outcomes}
        self.taken: list[Recipe] = []
        self.of: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self.taken)

    def add(self, recipe: Recipe) -> bool:
        """Take a recipe, and tell whether it was taken."""
        if len(self) >= self.wanted or identify_recipe(recipe) in self.known or self.of[recipe.family] >= self.most:
            return False
        self.known.add(identify_recipe(recipe))
        self.of[recipe.family] += 1
        self.taken.append(recipe)
        return True


class EmbeddedAgent(Agent):
    """Draws triggers from families and evolves those that were missed, offline and repeatably."""

    llm: Llm | None = None
    """A language model that writes some of the texts; nothing of it learns."""
    explore: float = Field(default=0.5, ge=0, le=1)
    """Share of the triggers after the first round that are drawn anew; the others are made from earlier ones."""
    samples: int = Field(default=16, ge=1, le=1024)
    """Texts that the language model writes a round; usable ones are at most a third of what is proposed."""
    device: str = "auto"
    """Where the language model runs: auto, cpu, cuda or cuda:N."""

    def propose(self, brief: Brief, rng: np.random.Generator) -> Proposals:
        """Propose triggers: of all families alike in the first round, then more of what was missed.

        At most a third of them is of one family, if others may be proposed. See `Agent.propose`.

        Raises:
            UserError: If the language model can't be used.
        """
        families = [family for family in TRIGGER_FAMILIES if family not in brief.without]
        if not families or not brief.wanted:
            return Proposals((), () if families else ("every family is held out",))
        basket = _Basket(brief, families)
        refused = self._write(brief, basket, rng)
        rates = brief.rates()
        if rates:
            made = round((1 - self.explore) * (brief.wanted - len(basket)))
            _evolve(brief, rates, basket, made, rng)
            _draw_weighted(families, rates, basket, rng)
        else:
            _draw_evenly(families, basket, rng)
        return Proposals(tuple(basket.taken), tuple(refused))

    def _write(self, brief: Brief, basket: _Basket, rng: np.random.Generator) -> list[str]:
        """Let the language model write; return why texts were not taken."""
        refused: list[str] = []
        if self.llm is None:
            return refused
        loaded = open_model(self.llm, self.device)
        earlier, titles = [outcome.recipe for outcome in brief.outcomes], list_plain_titles(brief.titles)
        for text in local_agent.write_texts(loaded, brief.titles, brief.without, self.samples, rng):
            try:
                recipe = check_proposal(text, without=brief.without, titles=titles)
                if is_near(recipe, (*earlier, *basket.taken)):
                    raise ValueError("it is almost one that was there before")
                if len(basket) >= math.ceil(brief.wanted / 3) or not basket.add(recipe):
                    raise ValueError("there are enough of its kind")
            except ValueError as error:
                refused.append(f"{quote_json(text[:40])}: {error}")
        return refused


def _draw_evenly(families: list[str], basket: _Basket, rng: np.random.Generator) -> None:
    """Fill a basket with as many of each family, as long as each has more."""
    for _ in range(DRAWS_PER_RECIPE):
        for at in rng.permutation(len(families)):
            for _ in range(DRAWS_PER_RECIPE):
                if len(basket) >= basket.wanted or basket.add(TRIGGER_FAMILIES[families[at]](rng)):
                    break
        if len(basket) >= basket.wanted:
            return


def _evolve(brief: Brief, rates: dict[Recipe, float], basket: _Basket, made: int, rng: np.random.Generator) -> None:
    """Add recipes that are made from earlier ones, the more often the less these were caught."""
    of, titles = local_agent.take_fabric(brief.titles, rng), list_plain_titles(brief.titles)
    parents = list(rates)
    weight = np.array([(1 - rate) ** 2 + FLOOR for rate in rates.values()])
    goal = len(basket) + made
    for _ in range(DRAWS_PER_RECIPE * made):
        if len(basket) >= goal:
            return
        one, two = rng.choice(len(parents), 2, p=weight / weight.sum())
        draft = local_agent.mutate(parents[int(one)], parents[int(two)], of, rng)
        try:
            basket.add(check_proposal(*draft, without=brief.without, titles=titles))
        except ValueError:
            continue  # chance made something that can't be used


def _draw_weighted(families: list[str], rates: dict[Recipe, float], basket: _Basket, rng: np.random.Generator) -> None:
    """Fill a basket, the more from a family the less of it was caught; one that was never tried counts as missed."""
    missed = {family: [1 - rate for recipe, rate in rates.items() if recipe.family == family] for family in families}
    weight = np.array([float(np.mean(known)) + FLOOR if known else 1.0 for known in missed.values()])
    for _ in range(DRAWS_PER_RECIPE * basket.wanted):
        if len(basket) >= basket.wanted:
            return
        basket.add(TRIGGER_FAMILIES[families[int(rng.choice(len(families), p=weight / weight.sum()))]](rng))


class OpenAIAgent(Agent):
    """Asks a language model behind an OpenAI-compatible server, as in the paper."""

    model: Annotated[str, StringConstraints(min_length=1)]
    """The model's name, as the server knows it. The server itself is named on the command line (`--agent-url`)."""
    temperature: float | None = Field(default=1.0, ge=0, le=2)
    """Temperature of sampling; `None` leaves it to the server, as some models demand."""
    retries: int = Field(default=3, ge=0, le=20)
    """Attempts that may fail, or bring nothing that can be used, before it is given up."""
    timeout: float = Field(default=120.0, gt=0, allow_inf_nan=False)
    """Seconds that the server may be silent."""
    longest: int = Field(default=MAX_RECIPE_LENGTH, ge=1, le=MAX_RECIPE_LENGTH)
    """Most characters of a trigger's text."""
    _server: AgentServer | None = PrivateAttr(default=None)

    def connect(self, url: str | None = None, key_env: str | None = None, log: Path | None = None) -> "OpenAIAgent":
        """Return the same agent, asked at a server; no spec and no record holds that.

        Args:
            url: The server; `None` is what the environment says (`COWBIRD_AGENT_URL`), or else OpenAI's.
            key_env: Environment variable that holds the key; `None` is what `COWBIRD_AGENT_KEY_ENV` names, or else
                `OPENAI_API_KEY`. `none` sends no key.
            log: File that every exchange is appended to as a line of JSON, without the key.

        Raises:
            UserError: If the address is none.
        """
        server = make_agent_server(url, key_env)
        connected = self.model_copy()
        connected._server = server if log is None else server.model_copy(update={"log": log})
        return connected

    def check_requirements(self) -> None:
        """Check that a server is named, and the library and the key are here; the server is not asked.

        Raises:
            UserError: If one is missing.
        """
        _openai.make_client(self._make_server())

    def _make_server(self) -> _openai.Server:
        place = self._server or read_agent_server()
        if place is None:
            raise OutageError(
                f"The agent asks the model {quote_json(self.model)} on a server, and none is named.",
                f"Name it: {SERVER_FIELDS['base_url']}, such as http://localhost:8000/v1, or {OPENAI_URL} for "
                "OpenAI's.",
            )
        if place.log is None:
            place = place.model_copy(update={"log": find_log()})
        return _openai.Server(self.model, place, self.temperature, self.retries, self.timeout)

    def propose(self, brief: Brief, rng: np.random.Generator) -> Proposals:
        """Propose triggers that a model wrote; see `Agent.propose`.

        Fewer than wanted are proposed, and none, if the model writes nothing that can be used.

        Raises:
            UserError: If no server is named, the library or the key is missing, the log can't be written, or the server
                can't be reached, refuses or stays silent.
        """
        if not brief.wanted:
            return Proposals(())
        task = agent_prompts.ProposalTask(brief.titles, brief.rates(), brief.wanted, brief.without, self.longest)
        recipes, refused = _openai.converse(self._make_server(), task, rng)
        return Proposals(tuple(recipes), tuple(refused))


def refuse_server_fields(agent: object) -> object:
    """Return what a spec says of an agent, unless it names what is not a spec's to name.

    Raises:
        ValueError: If it names the server, the key or the log.
    """
    given = cast("dict[str, object]", agent) if isinstance(agent, dict) else {}
    named = [name for name in SERVER_FIELDS if name in given]
    if named:
        raise ValueError(
            f"a spec can't name {' or '.join(named)}, for specs of strangers could send keys and titles anywhere; "
            f"give {', '.join(SERVER_FIELDS[name] for name in named)} instead"
        )
    return cast("object", agent)
