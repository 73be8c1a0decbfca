"""Judge titles: a scanner's pass over packed titles beside a plain batched loop of transformers.

    python benchmarks/scan.py --out docs/results/scan_cpu.json
    python benchmarks/scan.py --titles 131072 --chunk 16384 --workers 8 --out docs/results/scan_gpu.json

Both read the same titles both ways with the same model and weights (speed does not depend on what was learned, so the
adapters are fresh). The peer is what a user of transformers would write: titles in the order given, in batches padded
to the longest, one forward pass, a score for every token and title. Ours is all of `FittedScanner.suspect`:
tokenizing, reading, pooling over what recurs, rules for characters, spans. The peer does the first two. With
`--workers`, that many processes judge the same chunks beside each other (`cowbird scan --workers`), once they have
judged some to get ready; what is timed is all of it, titles there and verdicts back.

Rates are titles per second of processor time on a CPU, of wall time on a GPU; rounds go turn by turn and medians are
told. The floor is what the layers alone must compute, two operations a weight and token, at the rate that a square
product of 4,096 reaches on the same device in the same format.
"""

import argparse
import json
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cowbird.defenses.p_scanner.rounds.calibration import Calibration
from cowbird.defenses.p_scanner.rounds.fitted_scanner import FittedScanner, Record
from cowbird.defenses.p_scanner.rounds.ngram_scoring import NGRAM_FEATURES, NgramClassifier
from cowbird.defenses.p_scanner.rounds.ngrams import TokenSequences, find_ngrams
from cowbird.defenses.p_scanner.rounds.poison_scanner import PoisonScanner
from cowbird.defenses.p_scanner.token_logits import find_answer_words, read_logits, tokenize_titles
from cowbird.files import write_text
from cowbird.plugins import find_plugin
from cowbird.rng import stream, torch_stream
from cowbird.scanning.fitted_scorer import ScannerScorer
from cowbird.scanning.pool import ScorerPool
from cowbird.victims.base import pick_device
from cowbird.victims.language.llm import Llm, LoadedModel, add_adapters, load_llm
from cowbird.victims.language.weights import MergedAdapters
from llm_tuning import Clock


def different_titles(count: int) -> list[str]:
    """Return titles of MovieLens-100K, and beyond those two of them in one."""
    known = [title for title in find_plugin("dataset", "movielens_100k")().load().items.titles if title]
    titles = dict.fromkeys(known)
    rng = stream(0, "bench", "titles")
    while len(titles) < count:
        one, other = (known[nth] for nth in rng.integers(len(known), size=2).tolist())
        titles.setdefault(f"{' '.join(one.split()[:3])} {' '.join(other.split()[-3:])}"[:60])
    return list(titles)[:count]


def made(llm: Llm, device: torch.device) -> FittedScanner:
    """Return a scanner with fresh adapters."""
    spec = PoisonScanner(llm=llm)
    base = load_llm(llm, device, spec.tuning.pick_dtype(device))
    model = add_adapters(base.model, llm, torch_stream(0, "adapters"))
    even = NgramClassifier(
        center=(0.0,) * len(NGRAM_FEATURES),
        scale=(1.0,) * len(NGRAM_FEATURES),
        weight=(0.1,) * len(NGRAM_FEATURES),
        offset=-3.0,
    )
    clean = Calibration.of(np.linspace(-3, 0, 1000))
    record = Record(
        llm=llm,
        tuning=spec.tuning,
        weights=even,
        calibration=clean,
        alone=clean,
        fpr=0.01,
        review_fpr=0.05,
        titles_sha256="",
        rounds=(),
    )
    return FittedScanner(record, LoadedModel(model, base.tokenizer), device)


def fresh(llm: Llm, device: str, compiled: bool) -> ScannerScorer:
    """Return the same in a process of its own, as `cowbird scan` asks it."""
    torch.set_num_threads(1)
    scanner = made(llm, torch.device(device))
    scanner.compiled = compiled
    return ScannerScorer.of(scanner, None)


def plainly(scanner: FittedScanner, titles: list[str], batch: int) -> np.ndarray:
    """Score titles with transformers alone."""
    tokenizer: Any = scanner.loaded.tokenizer
    yes, no = find_answer_words(tokenizer)
    causal = scanner.loaded.model.get_base_model()
    causal.config._attn_implementation = "sdpa"
    border = tokenizer.decode([tokenizer.eos_token_id])
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    merged = MergedAdapters(scanner.loaded.model, learns=False)
    found: list[torch.Tensor] = []
    try:
        with torch.inference_mode():
            for first in range(0, len(titles), batch):
                texts = [f"{border}{title}{border}" for title in titles[first : first + batch]]
                given = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(scanner.device)
                hidden = given["attention_mask"] == 0
                seen = torch.zeros(hidden.shape, dtype=causal.dtype, device=scanner.device)
                seen = seen.masked_fill(hidden, -torch.inf)[:, None, None].expand(-1, 1, hidden.shape[1], -1)
                logits = causal(input_ids=given["input_ids"], attention_mask=seen).logits
                marks = (logits[..., yes] - logits[..., no]).masked_fill(hidden, -torch.inf)
                found.append(marks.max(dim=1).values.float().cpu())
    finally:
        merged.close()
    return torch.cat(found).numpy()


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return operations per second of a square product, the best of five."""
    side = 4096
    one = torch.randn(side, side, device=device).to(dtype)
    best = float("inf")
    for _ in range(5):
        clock = Clock(device)
        began = clock()
        torch.mm(one, one)
        best = min(best, clock() - began)
    return 2 * side**3 / best


def together(crew: ScorerPool, titles: list[str], chunk: int) -> None:
    """Have chunks judged by several processes."""
    waiting = [crew.begin(titles[first : first + chunk]) for first in range(0, len(titles), chunk)]
    for each in waiting:
        each()


def timed(
    works: list[tuple[str, Callable[[], Any], int]], device: torch.device, rounds: int, meet: bool
) -> dict[str, list[float]]:
    """Return titles per second of each work and round, turn by turn.

    Args:
        works: Names, what is done, and how many titles that reads.
        device: Whose clock is read.
        rounds: How often.
        meet: Whether processes work beside each other, so that wall time counts.
    """
    rates: dict[str, list[float]] = {name: [] for name, _, _ in works}
    for _ in range(rounds):
        for name, work, many in works:
            clock = Clock(device, (lambda: None) if meet else None)
            began = clock()
            work()
            rates[name].append(many / (clock() - began))
            print(name, round(rates[name][-1], 1), "titles/s", file=sys.stderr, flush=True)
    return rates


def parts(scanner: FittedScanner, titles: list[str]) -> dict[str, float]:
    """Return seconds of wall time of what `suspect` does, one after another."""
    told: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = work()
        told[name] = round(time.perf_counter() - began, 3)
        return result

    page = timed("tokenize", lambda: tokenize_titles(scanner.loaded.tokenizer, titles))
    timed(
        "tokenize and read",
        lambda: read_logits(scanner.loaded, titles, scanner.device, 65536 if scanner.device.type == "cuda" else 4096),
    )
    timed("fragments", lambda: find_ngrams(TokenSequences(page.token, page.offsets)))
    return told


def tell(record: dict[str, Any], out: Path | None) -> None:
    """Print what was measured, and write it if there is a file for it."""
    told = json.dumps(record, indent=1)
    if out:
        write_text(out, told + "\n")
    print(told)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--titles", type=int, default=4096)
    parser.add_argument("--chunk", type=int, default=8192)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64, help="of the peer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--workers", type=int, default=0, help="processes that judge beside each other")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = pick_device(options.device)
    llm = Llm(layers=options.layers or None, rank=32, alpha=64)
    scanner = made(llm, device)
    scanner.compiled = options.compiled
    titles = different_titles(options.titles)
    few = titles[: min(len(titles), 8192)]

    def ours() -> None:
        for first in range(0, len(titles), options.chunk):
            scanner.suspect(titles[first : first + options.chunk])

    works: list[tuple[str, Callable[[], Any], int]] = [
        ("cowbird", ours, len(titles)),
        ("transformers", lambda: plainly(scanner, few, options.batch), len(few)),
    ]
    scanner.suspect(few[:512])
    plainly(scanner, few[:512], options.batch)
    with ExitStack() as stack:
        if options.workers:
            make = partial(fresh, llm, str(device), options.compiled)
            crew = stack.enter_context(ScorerPool(ScannerScorer.of(scanner, None), make, options.workers))
            beside = partial(together, crew, titles, options.chunk)
            beside()  # until all have started, and once more until all have read
            beside()
            works.append((f"cowbird, {options.workers} processes", beside, len(titles)))
        rates = timed(works, device, options.rounds, bool(options.workers))
    layers = sum(
        weight.numel()
        for name, weight in scanner.loaded.model.named_parameters()
        if "layers." in name and "lora" not in name
    )
    tokens = int(tokenize_titles(scanner.loaded.tokenizer, few).tokens.offsets[-1]) / len(few)
    dtype = next(scanner.loaded.model.parameters()).dtype
    floor = product_rate(device, dtype) / (2 * layers * tokens)
    median = {name: statistics.median(found) for name, found in rates.items()}
    record = {
        "command": f"python benchmarks/scan.py {shlex.join(sys.argv[1:])}",
        "device": str(device),
        "seconds_are": "wall time" if options.workers else Clock(device).kind,
        "processes": options.workers or 1,
        "torch": torch.__version__,
        "dtype": str(dtype),
        "titles": len(titles),
        "tokens_a_title": round(tokens, 2),
        "titles_per_second": {name: round(value, 1) for name, value in median.items()},
        "rounds": {name: [round(value, 1) for value in found] for name, found in rates.items()},
        "ratio": round(median["cowbird"] / median["transformers"], 2),
        "titles_per_second_at_the_floor": round(floor, 1),
        "share_of_the_floor": {
            name: round(value / floor, 3) for name, value in median.items() if name != "transformers"
        },
        "wall_seconds_of_parts": {"titles": len(few)} | parts(scanner, few),
    }
    tell(record, options.out)


if __name__ == "__main__":
    main()
