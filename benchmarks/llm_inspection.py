"""Try words in a language model's titles: what a search costs, its floor, and what whole prompts would cost.

    python benchmarks/llm_inspection.py --layers 4 --words 512 --out docs/results/llm_inspection_cpu.json
    python benchmarks/llm_inspection.py --out docs/results/llm_inspection_gpu.json

Every word is put at the end of the title of TALLRec's published prompt, in one question of ten titles. Only what stands
behind the unchanged beginning is run (`cowbird.inspection.language`). The words are tokens of the model's tokenizer.

Floor, for P weights in the linear layers of the model: 2 P operations a token of the endings, over the rate of a matrix
product of the same shape in the same process. Attention to the beginning is 4 x layers x width x tokens of it a token;
it is counted as well. On a CPU seconds are of processor time, so other load disturbs little; on a GPU they are of wall
time. `whole` is what the floor would be if whole prompts were run, as a batch of prompts without a cache is.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from cowbird.files import write_text
from cowbird.inspection.language.fragment_scorer import open_scorer
from cowbird.inspection.language.prompt_scorer import CPU_PASS_TOKENS, GPU_PASS_TOKENS
from cowbird.inspection.language.questions import read_template
from cowbird.victims.fit_context import pick_device, pick_dtype
from cowbird.victims.language.llm import Llm, load_llm
from cowbird.victims.language.tallrec import YES_NO_ANSWERS

TITLES = [f"Quiet Harbor at Night, Part {number} (199{number})" for number in range(10)]


def read_clock(device: torch.device) -> float:
    """Return seconds: of this process's processor time on a CPU, of wall time on a GPU."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def measure_product_rate(rows: int, weight: torch.Tensor, device: torch.device) -> float:
    """Return operations a second of a product of some rows with a weight."""
    given = torch.randn(rows, weight.shape[1], dtype=weight.dtype, device=device)
    best = 0.0
    for _ in range(7):
        start = read_clock(device)
        for _ in range(10):
            torch.nn.functional.linear(given, weight)
        best = max(best, 20 * rows * weight.numel() / (read_clock(device) - start))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--words", type=int, default=16384)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    torch.set_num_threads(1)
    loaded = load_llm(Llm(name=arguments.model, layers=arguments.layers), device, pick_dtype("auto", device))
    question = read_template("tallrec").cut(TITLES[:5], TITLES[5:9], TITLES[9], good=True)
    known = [loaded.tokenizer.decode([token]).strip() for token in range(300, 300 + 3 * arguments.words)]
    words = [word for word in known if word.isalpha()][: arguments.words]
    layers = loaded.model.base_model.layers
    weights = sum(module.weight.numel() for module in layers.modules() if isinstance(module, torch.nn.Linear))
    rounds = []
    with torch.no_grad(), open_scorer(loaded, device, YES_NO_ANSWERS) as scorer:
        scorer.score(words[:64], [question])
        before = len(scorer.find_beginning(question, "end").tokens)
        for _ in range(arguments.rounds):
            done, start = scorer.tokens_run, read_clock(device)
            scorer.score(words, [question])
            rounds.append(read_clock(device) - start)
            tokens = scorer.tokens_run - done
        room = CPU_PASS_TOKENS if device.type == "cpu" else GPU_PASS_TOKENS
        rate = measure_product_rate(room, layers[0].mlp.up_proj.weight.detach(), device)
    width = loaded.model.config.hidden_size
    each = 2 * weights + 4 * len(layers) * width * before
    seconds = sorted(rounds)[len(rounds) // 2]
    result = {
        "device": device.type, "torch": torch.__version__, "model": arguments.model, "layers": len(layers),
        "words": len(words), "questions": 1, "beginning_tokens": before, "ending_tokens": tokens,
        "seconds": rounds, "product_operations_a_second": rate, "operations": each * tokens,
        "floor_seconds": each * tokens / rate, "gap": seconds / (each * tokens / rate),
        "whole_floor_seconds": each * (tokens + before * len(words)) / rate,
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    if arguments.out:
        write_text(arguments.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
