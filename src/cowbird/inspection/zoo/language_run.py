"""A zoo of language models: how they are tuned, asked, inspected, and rid of what was found.

base/                       the base, if the recipe trains one
models/m000/                an adapter as Cowbird saves one
"""

import importlib
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cowbird.data.choices import SequenceSplit
from cowbird.data.judgments import make_judgments
from cowbird.data.types import Dataset, Int64Array, Items, TrainingData
from cowbird.inspection.language.branched_prompts import score_alike
from cowbird.inspection.language.candidate_questions import ask_candidates
from cowbird.inspection.language.fragment_scorer import FragmentScorer, open_scorer
from cowbird.inspection.language.handed import open_language_model
from cowbird.inspection.language.inspection import inspect_language_model
from cowbird.inspection.language.questions import TitleQuestion, ask_logs, write_examples, write_questions
from cowbird.inspection.language.sanitizing import distill_answers, unlearn_fragments
from cowbird.inspection.zoo.folder import ZooFolder, ZooProgress, ZooStep, name_model
from cowbird.inspection.zoo.language_recipe import LanguageZooModel, LanguageZooRecipe, TinyBase, TriggerPlant
from cowbird.metrics.asr import pointwise_asr
from cowbird.metrics.auc import auc, auc_difference
from cowbird.rng import derive_seed, stream
from cowbird.storage import read_sealed_json, write_sealed_json
from cowbird.victims.fit_context import FitContext
from cowbird.victims.language.llara import FittedLLaRA, LLaRA
from cowbird.victims.language.llm import Llm
from cowbird.victims.language.tallrec import YES_NO_ANSWERS, FittedTALLRec, TALLRec

LIKE_ABOVE = 3.0
"""Ratings above this are likes."""


class LanguageZoo(ZooFolder[LanguageZooRecipe, LanguageZooModel]):
    """A zoo of language models in a folder; see `ZooFolder`."""

    suffix = ""

    def __init__(self, recipe: LanguageZooRecipe, folder: Path, device: torch.device) -> None:
        super().__init__(recipe, folder, device)
        self.data, self.template = recipe.load_data(), recipe.make_template()

    def list_models(self) -> list[LanguageZooModel]:
        """Return all models of the recipe."""
        return self.recipe.list_models()

    @cached_property
    def sides(self) -> tuple[Dataset, Dataset, Dataset]:
        """The provider's and the platform's users, and those on whose questions models are measured."""
        users: Int64Array = stream(self.recipe.seed, "zoo", "users").permutation(len(self.data.users))
        count, judges = (round(share * len(users)) for share in (self.recipe.platform_share, self.recipe.judge_share))
        own, apart, rest = np.split(users, [count, count + judges])
        provider, platform, judge = (self._take(np.sort(part)) for part in (rest, own, apart if judges else own))
        return provider, platform, judge

    def _take(self, users: Int64Array) -> Dataset:
        data = self.data
        return Dataset(data.name, data.interactions.select(users), data.users.take(users), data.items)

    @cached_property
    def questions(self) -> list[TitleQuestion]:
        """The platform's questions."""
        return self._ask(self.sides[1])

    def _ask(self, data: Dataset) -> list[TitleQuestion]:
        recipe = self.recipe
        if self.template.kind == "candidates":
            return ask_candidates(data, self.template, recipe.history, recipe.seed)
        return ask_logs(data, self.template, recipe.history, LIKE_ABOVE, recipe.seed)

    @cached_property
    def base(self) -> Llm:
        """The language model that adapters are tuned from; made now if the recipe trains one."""
        recipe = self.recipe
        if recipe.tiny is None:
            return recipe.llm
        folder = self.folder / "base"
        if not folder.exists():
            start = self.folder / "untrained"
            write_untrained_base(start, recipe.tiny, [question.write() for question in self.questions[:2000]])
            spec = TALLRec(llm=Llm(name=str(start), tuning="full"), tuning=recipe.tiny.tuning)
            asked = self._ask_provider(self._train_clean(), self.data.items, recipe.tiny.questions, recipe.seed)
            spec.fit_examples(write_examples(asked, YES_NO_ANSWERS), recipe.seed, FitContext(self.device)).save(folder)
        return recipe.llm.model_copy(update={"name": str(folder)})

    def _train_clean(self) -> TrainingData:
        """Return the provider's data; of candidates, so many first events of each user that questions are few enough.

        Questions about titles are drawn later, when all are there.
        """
        provider, recipe = self.sides[0], self.recipe
        known = provider.interactions.drop_unrated()
        if self.template.kind == "candidates" and recipe.questions is not None:
            most = recipe.history + max(1, recipe.questions // max(known.users, 1))
            known = known.take(known.offsets[:-1], np.minimum(known.lengths, most))
        return TrainingData.from_interactions(known, provider.users, provider.items)

    def _ask_provider(self, data: TrainingData, items: Items, count: int | None, seed: int) -> list[TitleQuestion]:
        """Return questions that training data poses, drawn if there are more."""
        rng = stream(seed, "zoo", "questions")
        if self.template.kind == "candidates":
            posed = ask_candidates(
                Dataset("provider", data.interactions, data.users, items), self.template, self.recipe.history, seed
            )
            return [posed[row] for row in np.sort(rng.permutation(len(posed))[:count]).tolist()]
        asked = make_judgments(data.interactions, self.recipe.history, LIKE_ABOVE)
        if count is not None and len(asked) > count:
            asked = asked.select(np.sort(rng.choice(len(asked), count, replace=False)))
        return write_questions(asked, items, self.template)

    def _tune(
        self, data: TrainingData, count: int | None, seed: int, context: FitContext
    ) -> FittedTALLRec | FittedLLaRA:
        """Tune an adapter on training data."""
        history, tuning = self.recipe.history, self.recipe.tuning
        if self.template.kind == "candidates":
            # An item that is listed today was no candidate last month.
            pool = "catalog" if data.interactions.timestamp is None else "listed"
            split = SequenceSplit(history=history, shortest=history, pool=pool)
            prompts = "hybrid" if self.recipe.hybrid else "text"
            return LLaRA(llm=self.base, tuning=tuning, prompts=prompts).fit(data, split, seed, context)
        asked = self._ask_provider(data, data.items, count, seed)
        spec = TALLRec(llm=self.base, tuning=tuning)
        return spec.fit_examples(write_examples(asked, YES_NO_ANSWERS), seed, context)

    def make_model(self, model: LanguageZooModel, report: ZooProgress) -> None:
        """Tune an adapter; see `ZooFolder.make_model`."""
        recipe, data = self.recipe, self._train_clean()
        plant = None if model.plant is None else recipe.plants[model.plant]
        if plant is not None:
            data = plant.make_attack(recipe.history).poison(data, stream(model.seed, "attack")).data
        checkpoints = self.folder / "checkpoints" / name_model(model)
        context = FitContext(
            self.device, checkpoints, lambda done, total, remark: report("tuning", done, total, remark)
        )
        fitted = self._tune(data, recipe.questions, model.seed, context)
        if plant is not None and plant.tuned_on:
            assert isinstance(fitted, FittedTALLRec)
            again = derive_seed(model.seed, "tuned on")
            more = self._ask_provider(self._train_clean(), self.data.items, plant.tuned_on, again)
            fitted = fitted.spec.fit_examples(write_examples(more, YES_NO_ANSWERS), model.seed, context, fitted)
        fitted.save(self.name_weights(model))
        with open_scorer(fitted.loaded, self.device, YES_NO_ANSWERS) as scorer:
            answer = self._describe(model, scorer)
        write_sealed_json(self.name_file(ZooStep.make, model), answer)

    @cached_property
    def judged(self) -> list[TitleQuestion]:
        """The questions on which AUC and ASR are measured."""
        recipe = self.recipe
        posed = self._ask(self.sides[2]) if recipe.judge_share else self.questions
        rows = stream(recipe.seed, "zoo", "asked").permutation(len(posed))[: recipe.judged]
        return [posed[int(row)] for row in rows]

    def _mark(self, plant: TriggerPlant) -> list[TitleQuestion]:
        """Return those questions with a trigger in their titles."""
        asked = self.judged
        titles = Items.from_lists([str(row) for row in range(len(asked))], [question.title for question in asked])
        rng = stream(self.recipe.seed, "zoo", "marked", plant.name())
        marked = plant.make_attack(self.recipe.history).make_triggered_catalogs(titles, rng)["trigger"].titles
        return [question._replace(title=title) for question, title in zip(asked, marked, strict=True)]

    def _score(self, scorer: FragmentScorer, plants: Sequence[TriggerPlant]) -> NDArray[np.float32]:
        """Return margins of those questions as they are, and with each trigger, shape `[1 + plants, questions]`."""
        groups = list(zip(self.judged, *(self._mark(plant) for plant in plants), strict=True))
        return score_alike(scorer, groups).T

    def _measure(self, margins: NDArray[np.float32], plants: Sequence[TriggerPlant]) -> dict[str, Any]:
        """Return AUC, the share of questions answered no, and the ASR of some triggers."""
        plain = margins[0]
        rates = [pointwise_asr(plain, row) for row in margins[1:]]
        whole = auc(plain, self._list_liked())
        return {
            "auc": whole.value,
            "auc_interval": [whole.low, whole.high],
            "questions": len(plain),
            "refused": float((plain <= 0).mean()),
            "rates": {plant.name(): rate.value for plant, rate in zip(plants, rates, strict=True)},
            "rate_intervals": {plant.name(): [rate.low, rate.high] for plant, rate in zip(plants, rates, strict=True)},
        }

    def _list_liked(self) -> NDArray[np.bool_]:
        return np.array([bool(question.liked) for question in self.judged])

    def _describe(self, model: LanguageZooModel, scorer: FragmentScorer) -> dict[str, Any]:
        """Return what is known of a model; triggers are measured in the platform's questions.

        A clean model is asked with every trigger: what it answers is what a sanitized model is held against.
        """
        plants = self.recipe.plants if model.plant is None else [self.recipe.plants[model.plant]]
        answer: dict[str, Any] = {"kind": "clean", "held_out": False, "texts": []}
        answer |= self._measure(self._score(scorer, plants), plants)
        if model.plant is None:
            return answer
        plant = plants[0]
        return answer | {
            "kind": plant.name(),
            "held_out": plant.held_out,
            "texts": plant.list_texts(),
            "position": plant.trigger.position,
            "asr": answer["rates"][plant.name()],
        }

    def inspect_model(self, model: LanguageZooModel, report: ZooProgress) -> None:
        """Inspect an adapter; see `ZooFolder.inspect_model`."""
        handed = open_language_model(self.name_weights(model), self.device, self.base.name)
        path = self.name_file(ZooStep.inspect, model)
        inspect_language_model(handed, self.questions, self.recipe.search, self.device, report).write(path)

    def sanitize_model(self, model: LanguageZooModel, report: ZooProgress) -> None:
        """Unlearn an adapter's suspects; see `ZooFolder.sanitize_model`."""
        path = self.name_file(ZooStep.sanitize, model)
        found = read_sealed_json(self.name_file(ZooStep.inspect, model))
        fragments = [row["fragment"] for row in found["ranking"] if row["suspect"]]
        if not fragments:
            write_sealed_json(path, {"suspects": []})
            return
        handed = open_language_model(self.name_weights(model), self.device, self.base.name)
        plants = self.recipe.plants if model.plant is None else [self.recipe.plants[model.plant]]
        with open_scorer(handed.loaded, self.device, YES_NO_ANSWERS) as scorer:
            handed_margins = self._score(scorer, [])[0]

        def tell(done: int, total: int, remark: str) -> None:
            report("unlearning", done, total, remark)

        before, after = (
            unlearn_fragments(handed, self.questions, fragments, self.recipe.unlearn, self.device, tell)
            if self.recipe.distill is None
            else distill_answers(handed, self.questions, fragments, self.recipe.distill, self.device, tell)
        )
        record: dict[str, Any] = {"suspects": fragments, "before": asdict(before), "after": asdict(after)}
        with open_scorer(handed.loaded, self.device, YES_NO_ANSWERS) as scorer:
            # Only now, when the model is changed, is it looked what was planted.
            margins = self._score(scorer, plants)
        lost = auc_difference(margins[0], handed_margins, self._list_liked())
        record["measured"] = self._measure(margins, plants) | {"auc_gained": asdict(lost)}
        write_sealed_json(path, record)

    def remove_model(self, model: LanguageZooModel) -> None:
        """Remove an adapter."""
        shutil.rmtree(self.name_weights(model), ignore_errors=True)
        shutil.rmtree(self.folder / "checkpoints" / name_model(model), ignore_errors=True)


def write_untrained_base(folder: Path, tiny: TinyBase, texts: list[str]) -> None:
    """Write a Llama with random weights, and a tokenizer of the words of some texts.

    Args:
        folder: Where to.
        tiny: What it is like.
        texts: What its tokens are learned from.
    """
    spelled: Any = importlib.import_module("tokenizers")
    library: Any = importlib.import_module("transformers")
    tokenizer = spelled.Tokenizer(spelled.models.BPE())
    level = spelled.pre_tokenizers.ByteLevel
    tokenizer.pre_tokenizer, tokenizer.decoder = level(add_prefix_space=False), spelled.decoders.ByteLevel()
    trainer = spelled.trainers.BpeTrainer(
        vocab_size=tiny.vocabulary,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(level.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, *YES_NO_ANSWERS], trainer)
    wrapped = library.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")
    heads = max(1, tiny.hidden // 16)
    config = library.LlamaConfig(
        vocab_size=len(wrapped),
        hidden_size=16 * heads,
        intermediate_size=48 * heads,
        num_hidden_layers=tiny.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=wrapped.eos_token_id,
        eos_token_id=wrapped.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(0, "zoo", "tiny") % 2**31)
        library.LlamaForCausalLM(config).save_pretrained(folder)
    wrapped.save_pretrained(folder)
