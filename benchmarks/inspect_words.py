"""All words of a language model in the titles of two questions: how long they take on a few cores.

    taskset -c 0,1 python benchmarks/inspect_words.py --threads 2 --out docs/results/inspect_words_cpu.json

The base is asked in TALLRec's published prompt about MovieLens-100K's titles. Only words are tried, at the end of a
title, as `cowbird inspect --words 100000 --device cpu` tries them; nothing is tuned. Wall time and processor time are
both told, and what had been tried after each minute: a run that is cut off tells as much.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from cowbird.data.sources.movielens_100k import MovieLens100K
from cowbird.files import write_text
from cowbird.inspection.language.fragment_scorer import open_scorer
from cowbird.inspection.language.proposals import list_words
from cowbird.inspection.language.questions import ask_logs, divide_questions, read_template
from cowbird.inspection.language.search import CPU_CHUNK_FRAGMENTS, choose_questions
from cowbird.victims.fit_context import pick_dtype
from cowbird.victims.language.llm import Llm, load_llm
from cowbird.victims.language.tallrec import YES_NO_ANSWERS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--words", type=int)
    parser.add_argument("--history", type=int, default=10)
    parser.add_argument("--questions", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    device = torch.device("cpu")
    torch.set_num_threads(arguments.threads)
    loaded = load_llm(Llm(name=arguments.model, layers=arguments.layers), device, pick_dtype("auto", device))
    questions = ask_logs(MovieLens100K().load(), read_template("tallrec"), arguments.history)
    parts = divide_questions(questions, 200, 2000, 0)
    words = list_words((question.title for question in questions), loaded.tokenizer, arguments.words)
    start, used = time.perf_counter(), time.process_time()
    done, marks = 0, list[list[float]]()
    with open_scorer(loaded, device, YES_NO_ANSWERS) as scorer:
        asked = choose_questions(scorer, parts.screening[:20], arguments.questions)
        before = [time.perf_counter() - start, time.process_time() - used]
        while done < len(words) and time.perf_counter() - start < 60 * arguments.minutes:
            chunk = words[done : done + CPU_CHUNK_FRAGMENTS]
            scorer.score(chunk, asked)
            done += len(chunk)
            marks.append([done, round(time.perf_counter() - start, 1), round(time.process_time() - used, 1)])
            record = {
                "command": f"taskset -c 0,1 python benchmarks/inspect_words.py --threads {arguments.threads}",
                "words": len(words),
                "tried": done,
                "questions": arguments.questions,
                "threads": arguments.threads,
                "dtype": str(pick_dtype("auto", device)),
                "seconds_before": [round(each, 1) for each in before],
                "wall_seconds": marks[-1][1],
                "processor_seconds": marks[-1][2],
                "after": marks,
            }
            print(marks[-1], flush=True)
            if arguments.out is not None:
                write_text(arguments.out, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
