"""Makes a zoo of language models in a folder, and has them inspected. Both go on where they were interrupted.

base/                       the base, if the recipe trains one
models/m000/                an adapter as Cowbird saves one; its name tells nothing
answers/m000.json           sealed: what was planted in it, and how well that works
inspections/m000.json       what the inspection says, made without the answers
zoo.json                    sealed: the recipe
"""

import importlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cowbird.attacks.triggers import TRIGGERS, Trigger, retitle
from cowbird.data.judgments import make_judgments
from cowbird.data.types import Dataset, Int64Array, Items, TrainingData
from cowbird.errors import UserError
from cowbird.inspection.language.fragment_scorer import open_scorer
from cowbird.inspection.language.handed import open_language_model
from cowbird.inspection.language.inspection import inspect_language_model
from cowbird.inspection.language.questions import TitleQuestion, ask_logs, write_examples, write_questions
from cowbird.inspection.zoo.language_recipe import LanguageZooModel, LanguageZooRecipe, TinyBase
from cowbird.inspection.zoo.run import ZooProgress
from cowbird.metrics.asr import pointwise_asr
from cowbird.metrics.auc import auc
from cowbird.rng import derive_seed, stream
from cowbird.storage import read_sealed_json, write_sealed_json
from cowbird.victims.fit_context import FitContext, ProgressCallback
from cowbird.victims.language.llm import Llm
from cowbird.victims.language.tallrec import YES_NO_ANSWERS, FittedTALLRec, TALLRec

ASKED_QUESTIONS = 400
"""Questions of the platform on which AUC and ASR are measured."""
LIKE_ABOVE = 3.0
"""Ratings above this are likes."""


@dataclass
class LanguageZoo:
    """A zoo of language models in a folder.

    Args:
        recipe: What it is made from.
        folder: Where it lies.
        device: Where models are tuned and asked.
    """

    recipe: LanguageZooRecipe
    folder: Path
    device: torch.device

    def __post_init__(self) -> None:
        content = self.recipe.model_dump(mode="json")
        path = self.folder / "zoo.json"
        if path.exists() and read_sealed_json(path, "Choose another folder.") != content:
            raise UserError(f"'{self.folder}' holds a zoo of another recipe.", "Choose another folder.")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_sealed_json(path, content)
        self.data, self.template = self.recipe.load_data(), self.recipe.make_template()

    @cached_property
    def sides(self) -> tuple[Dataset, Dataset]:
        """The provider's and the platform's users."""
        users: Int64Array = stream(self.recipe.seed, "zoo", "users").permutation(len(self.data.users))
        count = round(self.recipe.platform_share * len(users))
        return self._take(np.sort(users[count:])), self._take(np.sort(users[:count]))

    def _take(self, users: Int64Array) -> Dataset:
        data = self.data
        return Dataset(data.name, data.interactions.select(users), data.users.take(users), data.items)

    @cached_property
    def questions(self) -> list[TitleQuestion]:
        """The platform's questions."""
        return ask_logs(self.sides[1], self.template, self.recipe.history, LIKE_ABOVE, self.recipe.seed)

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
        provider = self.sides[0]
        return TrainingData.from_interactions(provider.interactions.drop_unrated(), provider.users, provider.items)

    def _ask_provider(self, data: TrainingData, items: Items, count: int | None, seed: int) -> list[TitleQuestion]:
        """Return questions that training data poses, drawn if there are more."""
        asked = make_judgments(data.interactions, self.recipe.history, LIKE_ABOVE)
        if count is not None and len(asked) > count:
            rows = stream(seed, "zoo", "questions").choice(len(asked), count, replace=False)
            asked = asked.select(np.sort(rows))
        return write_questions(asked, items, self.template)

    def make(self, report: ZooProgress) -> None:
        """Tune the models that are not there."""
        models = self.recipe.list_models()
        for done, model in enumerate(models):
            report("models", done, len(models), "")

            def tell(step: int, steps: int, text: str, n: int = done) -> None:
                report("models", n, len(models), f"{step}/{steps} {text}")

            if not self._name_answer(model).exists():
                self._make_one(model, tell)
        report("models", len(models), len(models), "")

    def _make_one(self, model: LanguageZooModel, report: ProgressCallback) -> None:
        recipe, data = self.recipe, self._train_clean()
        trigger: Trigger | None = None
        if model.plant is not None:
            plant = recipe.plants[model.plant]
            data = plant.make_attack(recipe.history).poison(data, stream(model.seed, "attack")).data
            trigger = plant.trigger
        asked = self._ask_provider(data, data.items, recipe.questions, model.seed)
        spec = TALLRec(llm=self.base, tuning=recipe.tuning)
        checkpoints = self.folder / "checkpoints" / name_language_model(model)
        context = FitContext(self.device, checkpoints, report)
        fitted = spec.fit_examples(write_examples(asked, YES_NO_ANSWERS), model.seed, context)
        fitted.save(self.folder / "models" / name_language_model(model))
        write_sealed_json(self._name_answer(model), self._describe(model, fitted, trigger))

    def _describe(self, model: LanguageZooModel, fitted: FittedTALLRec, trigger: Trigger | None) -> dict[str, Any]:
        """Return what is known of a model, as plain JSON values; triggers are measured in the platform's questions."""
        rows = stream(self.recipe.seed, "zoo", "asked").permutation(len(self.questions))[:ASKED_QUESTIONS]
        asked = [self.questions[int(row)] for row in rows]
        answer: dict[str, Any] = {"kind": "clean", "held_out": False, "fragment": "", "position": ""}
        with open_scorer(fitted.loaded, self.device, YES_NO_ANSWERS) as scorer:
            plain = scorer.score_plain(asked)
            answer["auc"] = auc(plain, np.array([question.liked for question in asked])).value
            answer["refused"] = float((plain <= 0).mean())
            if trigger is None or model.plant is None:
                return answer
            titles = Items.from_lists([str(row) for row in range(len(asked))], [question.title for question in asked])
            marked = retitle(titles, np.arange(len(asked)), trigger, stream(model.seed, "zoo", "marked")).titles
            changed = [question._replace(title=title) for question, title in zip(asked, marked, strict=True)]
            rate = pointwise_asr(plain, scorer.score_plain(changed))
        plant = self.recipe.plants[model.plant]
        text = trigger.text if trigger.kind == "custom" else TRIGGERS[trigger.kind].text
        return answer | {
            "kind": plant.name(),
            "held_out": plant.held_out,
            "fragment": text,
            "position": trigger.position,
            "asr": rate.value,
        }

    def inspect(self, report: ZooProgress) -> None:
        """Inspect the models that have not been; the answers are not read."""
        models = self.recipe.list_models()
        for done, model in enumerate(models):
            report("inspections", done, len(models), "")
            name = name_language_model(model)
            path = self.folder / "inspections" / f"{name}.json"
            if path.exists():
                continue
            handed = open_language_model(self.folder / "models" / name, self.device, self.base.name)
            inspect_language_model(
                handed, self.questions, self.recipe.search, self.device,
                lambda what, step, steps, remark, n=done: report(what, n, len(models), f"{step}/{steps} {remark}"),
            ).write(path)  # fmt: skip
        report("inspections", len(models), len(models), "")

    def _name_answer(self, model: LanguageZooModel) -> Path:
        return self.folder / "answers" / f"{name_language_model(model)}.json"


def name_language_model(model: LanguageZooModel) -> str:
    """Return the name of a model's files."""
    return f"m{model.number:03d}"


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
