"""Answer LLaRA's questions: Cowbird's pass over all candidates beside model.generate.

    python benchmarks/llm_choosing.py --out docs/results/llm_choosing_gpu.json
    python benchmarks/llm_choosing.py --layers 2 --train-users 4 --questions 32 --precision float32 --device cpu

LLaRA is tuned on some users first, so that what it writes are mostly titles. Then both answer the same questions, turn
by turn in one process: `FittedLLaRA.choose`, which reads the greedy answer (and the one of a decoder that may write
nothing but candidates) off one pass, and `model.generate` as a user of transformers would call it: greedy, with a cache
of keys and values, in batches padded on the left, prompts of similar length together, with the same inputs for items,
adapters merged where Cowbird merges them, and the same number of tokens at most. Prompts are written and answers
decoded within the time of each.

Rates are questions per second of processor time on a CPU, of wall time on a GPU. `equal` is the share of questions
that both answer with the same text: 1 in float32, while two tokens may tie in bfloat16.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cowbird.data.choices import Choices, SequenceSplit
from cowbird.data.types import Items, TrainingData
from cowbird.files import write_text
from cowbird.metrics.choice import pick_rate, valid_ratio
from cowbird.metrics.intervals import Interval
from cowbird.plugins import find_plugin
from cowbird.rng import stream
from cowbird.victims.base import FitContext, Picks, pick_device
from cowbird.victims.language.examples import Tokens
from cowbird.victims.language.llara import FittedLLaRA, LLaRA
from cowbird.victims.language.llm import Llm
from cowbird.victims.language.packing import embed_inputs
from cowbird.victims.language.tuning import Tuning
from cowbird.victims.language.weights import MergedAdapters
from cowbird.victims.sequential.sasrec import SASRec
from llm_tuning import Clock

ASKED = 20
"""Events of each test user that questions are drawn from."""
BATCH = 16
"""Examples a step while tuning: few, so that few users make enough steps to learn what an answer looks like."""


def batch(fitted: FittedLLaRA, causal: Any, prompts: Tokens, chosen: list[int]) -> dict[str, torch.Tensor]:
    """Return the inputs of some prompts, padded on the left, and which of them are none."""
    wide = int(prompts.lengths[chosen].max())
    token = np.full((len(chosen), wide), fitted.loaded.tokenizer.eos_token_id, dtype=np.int64)
    item, there = np.full_like(token, -1), np.zeros_like(token)
    for row, question in enumerate(chosen):
        begin, end = prompts.offsets[question : question + 2].tolist()
        token[row, wide - (end - begin) :], there[row, wide - (end - begin) :] = prompts.token[begin:end], 1
        if prompts.item is not None:
            item[row, wide - (end - begin) :] = prompts.item[begin:end]
    tokens, items, mask = (torch.from_numpy(array).to(fitted.device) for array in (token, item, there))
    inputs = embed_inputs(causal, tokens.reshape(1, -1), items.flatten(), fitted.projector)["inputs_embeds"]
    return {"inputs_embeds": inputs.view(*tokens.shape, -1), "attention_mask": mask}


def generated(fitted: FittedLLaRA, choices: Choices, items: Items, batch_size: int) -> list[str]:
    """Answer with `model.generate`."""
    prompts, _, _ = fitted.write_prompts(choices, items)
    tokenizer = fitted.loaded.tokenizer
    end: int = tokenizer.eos_token_id
    merged = MergedAdapters(fitted.model, learns=False) if fitted.device.type == "cuda" else None
    causal = fitted.model.get_base_model()
    causal.config._attn_implementation = "sdpa"
    written: list[list[int]] = [[] for _ in range(len(choices))]
    order = np.argsort(prompts.lengths, kind="stable")
    try:
        with torch.inference_mode():
            for first in range(0, len(order), batch_size):
                chosen: list[int] = order[first : first + batch_size].tolist()
                out = causal.generate(
                    **batch(fitted, causal, prompts, chosen),
                    do_sample=False,
                    max_new_tokens=fitted.spec.longest_answer,
                    eos_token_id=end,
                    pad_token_id=end,
                )
                for question, row in zip(chosen, out.tolist(), strict=True):
                    written[question] = row[: row.index(end)] if end in row else row
    finally:
        if merged is not None:
            merged.close()
    return [text.removeprefix(" ") for text in tokenizer.batch_decode(written)]


def some_users(training: TrainingData, count: int | None) -> TrainingData:
    """Return the training data of some users, drawn."""
    users = training.interactions.users
    if count is None or count >= users:
        return training
    chosen = np.sort(stream(0, "bench", "users").choice(users, count, replace=False))
    return TrainingData.from_interactions(
        training.interactions.select(chosen), training.users.take(chosen), training.items
    )


def ratios(picks: Picks, test: Choices) -> dict[str, Interval]:
    """Return how well questions are answered."""

    def rng() -> np.random.Generator:
        return stream(0, "bootstrap")

    return {
        "valid_ratio": valid_ratio(picks.free, test.user, rng()),
        "hit_ratio@1": pick_rate(picks.free, test.answer, test.user, rng()),
        "hit_ratio@1_constrained": pick_rate(picks.constrained, test.answer, test.user, rng()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--train-users", type=int, help="training users, drawn; all by default")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--questions", type=int, default=1024)
    parser.add_argument("--batch-size", type=int, default=64, help="prompts that model.generate is given at once")
    parser.add_argument("--capacity", type=int, default=8192, help="tokens in a row of Cowbird's")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16"))
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    clock, gpu = Clock(device), device.type == "cuda"
    data = find_plugin("dataset", "movielens_100k")().load()
    split = SequenceSplit(asked=ASKED)
    parts = split.apply(data)
    count = min(arguments.questions, len(parts.test))
    test = parts.test.select(np.sort(stream(0, "bench").choice(len(parts.test), count, replace=False)))
    spec = LLaRA(
        llm=Llm(layers=arguments.layers),
        tuning=Tuning(
            epochs=arguments.epochs, batch_size=BATCH, capacity=arguments.capacity, precision=arguments.precision
        ),
        recommender=SASRec(epochs=30, keep="last", patience=None),
    )
    fitted = spec.fit(some_users(parts.training, arguments.train_users), split, 0, FitContext(device))
    print(f"tuned for {fitted.curve.seconds:.0f} s, last loss {fitted.curve.losses[-1]:.3f}", flush=True)
    texts: dict[str, list[str]] = {}
    runs: dict[str, Callable[[], list[str]]] = {
        "cowbird": lambda: list(fitted.choose(test, data.items).texts),
        "generate": lambda: generated(fitted, test, data.items, arguments.batch_size),
    }
    # What a process does once, such as loading kernels, is done before the clock starts.
    picks = fitted.choose(test, data.items)
    generated(fitted, test.select(np.arange(min(count, arguments.batch_size))), data.items, arguments.batch_size)
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(arguments.rounds):
        for name, run in runs.items():
            start = clock()
            texts[name] = run()
            rates[name].append(round(count / (clock() - start), 2))
            print(name, rates[name][-1], "questions/s", flush=True)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    pairs = list(zip(texts["cowbird"], texts["generate"], strict=True))
    record = {
        "device": torch.cuda.get_device_name(device) if gpu else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "unit": f"questions per second of {clock.kind}",
        "precision": str(spec.tuning.pick_dtype(device)).removeprefix("torch."),
        "layers": arguments.layers,
        "train_users": arguments.train_users,
        "epochs": arguments.epochs,
        "questions": count,
        "batch_size": arguments.batch_size,
        "capacity": arguments.capacity,
        "rates": rates,
        "medians": medians,
        "ratio": round(medians["cowbird"] / medians["generate"], 2),
        "equal": sum(one == two for one, two in pairs) / count,
        "unequal": [pair for pair in pairs if pair[0] != pair[1]][:10],
        "written": texts["cowbird"][:5],
        **{name: asdict(found) for name, found in ratios(picks, test).items()},
    }
    if arguments.out:
        write_text(arguments.out, json.dumps(record, indent=1))
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
