"""Titles in other words: written by a language model, checked, and kept.

What stands before every title (an instruction and an example) is read once; its keys and values are shared by all.
Titles of like lengths are written together, greedily. A title is hostile and so is what a model makes of it: control
tokens in a title are plain text, the answer ends with its line or its quotation mark, and one that looks wrong is not
used. An answer may depend in its last digits on which titles stand beside it, as sums in floating point do.
"""

import copy
import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch

from cowbird.data.titles import quote_titles
from cowbird.defenses._reading import open_model
from cowbird.errors import OutageError
from cowbird.files import get_cache_folder, hash_file, read_plain_text, write_text
from cowbird.notices import NoticeRank, note
from cowbird.text import quote_for_prompt
from cowbird.victims.fit_context import pick_device
from cowbird.victims.language.libraries import import_transformers
from cowbird.victims.language.llm import Llm, LoadedModel, locate_model
from cowbird.victims.language.packing import split_runs
from cowbird.victims.repeatable import force_determinism

REWRITE_EXAMPLE = ("Blue GUITAR, The xx must see", "The Blue Guitar")
"""A title, and what is to be made of it."""
REWRITE_BATCH_TOKENS = 8192
"""Tokens that are held at once."""
TITLES_PER_SAVE = 512
"""Titles after which what was written is kept on disk."""
_TITLE = "\ue000"
_BROKEN_CHARACTER = "\N{REPLACEMENT CHARACTER}"


class RewriteCounts(NamedTuple):
    """What became of the distinct titles that were asked about."""

    titles: int
    """All of them, but for those of which nothing is left to read."""
    changed: int
    """Those that are read otherwise than they stand."""
    refused: int
    """Those that stay as they are since what was written of them could not be used."""
    merged: int
    """How many fewer texts are read than there are titles: different ones may be rewritten alike."""


class Rewriter:
    """Rewrites titles, each distinct one once.

    Args:
        llm: The language model that writes; loaded when it is needed.
        instruction: What it is told.
        longest: Most tokens of an answer.
        device: Where it runs: auto, cpu, cuda or cuda:N.

    Raises:
        UserError: If the device can't be used.
    """

    def __init__(self, llm: Llm, instruction: str, longest: int, device: str) -> None:
        self.llm, self.instruction, self.longest, self.device = llm, instruction, longest, device
        self.kind = pick_device(device).type
        self.known: dict[str, str | None] = {}
        """Answers by quotable title, `None` where one could not be used."""

    @cached_property
    def path(self) -> Path:
        """Where answers are kept."""
        how = [self.instruction, REWRITE_EXAMPLE, self.longest, self.kind]
        made = json.dumps([self.llm.name, self.llm.layers, *_hash_files(self.llm), *how])
        return get_cache_folder() / "rewritten" / f"{hashlib.sha256(made.encode()).hexdigest()[:32]}.json"

    @cached_property
    def writer(self) -> "TitleWriter":
        """The model that writes."""
        return TitleWriter(open_model(self.llm, self.device), self.instruction, self.longest)

    @property
    def counts(self) -> RewriteCounts:
        """What became of the titles so far."""
        read = {title: title if answer is None else answer for title, answer in self.known.items()}
        changed = sum(title != text for title, text in read.items())
        refused = sum(answer is None for answer in self.known.values())
        return RewriteCounts(len(read), changed, refused, len(read) - len(set(read.values())))

    def __call__(self, titles: Sequence[str]) -> list[str]:
        """Return what is read instead of titles: an answer, or the title where none can be used.

        Raises:
            UserError: If the model can't be loaded, or the cache can't be written.
        """
        shown = quote_titles(titles)
        new = [text for text in dict.fromkeys(shown) if text and text not in self.known]
        if new:
            held = _read_answers(self.path)
            self.known |= {text: held[text] for text in new if text in held}
            new = sorted((text for text in new if text not in held), key=len)
        for start in range(0, len(new), TITLES_PER_SAVE):
            self._write(new[start : start + TITLES_PER_SAVE])
        text = "{n} titles are read as they stand, for what a model wrote in their place can't be used."
        one = "1 title is read as it stands, for what a model wrote in its place can't be used."
        note(NoticeRank.CHANGE, text, self.counts.refused, one)
        return [self.known.get(text) or title for text, title in zip(shown, titles, strict=True)]

    def _write(self, titles: list[str]) -> None:
        answers = self.writer(titles)
        made = {title: validate_answer(title, answer) for title, answer in zip(titles, answers, strict=True)}
        self.known |= made
        # Another process may have written meanwhile; what it wrote just then is made again by whoever needs it.
        write_text(self.path, json.dumps(_read_answers(self.path) | made))


def validate_answer(title: str, answer: str | None) -> str | None:
    """Return an answer as it can stand for a title, `None` if it can't.

    An answer is a quotable line of at most 300 characters, holds no character that was cut in two, and does not
    repeat the example.

    Args:
        title: A quotable title.
        answer: What was written, whoever wrote it; `None` if it did not end.
    """
    text = (answer or "").strip()
    if not text or quote_for_prompt(text) != text:
        return None
    if _BROKEN_CHARACTER in text and _BROKEN_CHARACTER not in title:
        return None
    repeated = text.casefold() == REWRITE_EXAMPLE[1].casefold() != title.casefold()
    return None if repeated else text


def _hash_files(llm: Llm) -> list[str]:
    """Return the hashes of a model's files; of one on a hub there are none, and its name stands for it."""
    folder = Path(locate_model(llm.name))
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".json", ".jinja"))
        return [f"{path.name} {hash_file(path)}" for path in files]
    except OSError:
        return []


def _read_answers(path: Path) -> dict[str, str | None]:
    """Read what was kept; what is missing, damaged or not usable is made anew."""
    try:
        held: Any = json.loads(read_plain_text(path, None))
    except (FileNotFoundError, ValueError):
        return {}
    except OSError as error:  # it may be whole, and what is made anew would replace it
        raise OutageError(f"'{path}' can't be read: {error.strerror}.", "Mend that and try again.") from None
    if not isinstance(held, dict):
        return {}
    texts = cast(dict[str, Any], held)
    return {
        title: answer
        for title, answer in texts.items()
        if answer is None or (isinstance(answer, str) and validate_answer(title, answer) == answer)
    }


class TitleWriter:
    """Writes titles anew with a language model.

    Args:
        loaded: The model and its tokenizer, which takes control tokens as text.
        instruction: What the model is told.
        longest: Most tokens of an answer.
    """

    def __init__(self, loaded: LoadedModel, instruction: str, longest: int) -> None:
        self.model, self.tokenizer, self.longest = loaded.model.eval(), loaded.tokenizer, longest
        self.head, self.tail = (
            self._tokenize(text, control=True) for text in make_frame(loaded.tokenizer, instruction)
        )
        if loaded.tokenizer.chat_template is None and loaded.tokenizer.bos_token_id is not None:
            starts = loaded.tokenizer("a")["input_ids"][:1] == [loaded.tokenizer.bos_token_id]
            self.head = [loaded.tokenizer.bos_token_id] * starts + self.head
        vocabulary: dict[str, int] = loaded.tokenizer.get_vocab()
        # A line break is spelled so in vocabularies of bytes, and so in others.
        ends = ('"', "\u010a", "\n", "<0x0A>")
        stops = {token for text, token in vocabulary.items() if any(end in text for end in ends)}
        self.stops = {loaded.tokenizer.eos_token_id, *stops}

    def __call__(self, titles: Sequence[str]) -> list[str | None]:
        """Return what is written of quotable titles, up to a quotation mark or the line's end.

        Returns:
            An answer each; `None` where none ended within its room: half as many tokens again as the title has and
            eight, and never more than `longest`.
        """
        rows = [self._tokenize(title) for title in titles]
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        order = np.argsort(lengths, kind="stable")
        held = len(self.head) + len(self.tail) + 2 * lengths
        found: list[str | None] = [None] * len(rows)
        with torch.inference_mode(), force_determinism(self.model.device):
            shared: Any = import_transformers().DynamicCache(config=self.model.config)
            self.model(input_ids=torch.tensor([self.head], device=self.model.device), past_key_values=shared)
            for chosen in split_runs(held, order, REWRITE_BATCH_TOKENS):
                part: list[int] = chosen.tolist()
                room = [min(self.longest, len(rows[nth]) * 3 // 2 + 8) for nth in part]
                written = self._write([rows[nth] for nth in part], room, copy.deepcopy(shared))
                for nth, answer in zip(part, written, strict=True):
                    found[nth] = self._decode_answer(answer)
        return found

    def _tokenize(self, text: str, control: bool = False) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=not control)["input_ids"]

    def _write(self, titles: list[list[int]], room: list[int], shared: Any) -> list[list[int]]:
        """Write greedily, as `generate` does; a title whose answer has ended leaves the others.

        Args:
            titles: Tokens of each title.
            room: Most tokens of each answer.
            shared: Keys and values of what stands before all titles; used up.
        """
        wide, end, device = max(map(len, titles)), self.tokenizer.eos_token_id, self.model.device
        gaps = [wide - len(title) for title in titles]
        rows = [[end] * gap + title + self.tail for gap, title in zip(gaps, titles, strict=True)]
        token = torch.tensor(rows, device=device)
        seen = torch.ones((len(rows), len(self.head) + len(rows[0])), dtype=torch.long, device=device)
        for row, gap in zip(seen, gaps, strict=True):
            row[len(self.head) : len(self.head) + gap] = 0
        position = seen.cumsum(dim=1)[:, -len(rows[0]) :] - 1
        shared.batch_repeat_interleave(len(rows))
        written: list[list[int]] = [[] for _ in rows]
        alive: list[int] = list(range(len(rows)))
        while True:
            out = self.model(
                input_ids=token,
                attention_mask=seen,
                position_ids=position,
                past_key_values=shared,
                use_cache=True,
                logits_to_keep=1,
            )
            best = out.logits[:, -1].argmax(dim=1)
            tokens: list[int] = best.tolist()
            for nth, one in zip(alive, tokens, strict=True):
                written[nth].append(one)
            kept = [
                place
                for place, nth in enumerate(alive)
                if written[nth][-1] not in self.stops and len(written[nth]) < room[nth]
            ]
            if not kept:
                return written
            if len(kept) < len(alive):
                left = torch.tensor(kept, device=device)
                shared.batch_select_indices(left)
                best, seen, position = best[left], seen[left], position[left]
                alive = [alive[place] for place in kept]
            token, position = best[:, None], position[:, -1:] + 1
            seen = torch.cat([seen, torch.ones_like(seen[:, :1])], dim=1)

    def _decode_answer(self, written: list[int]) -> str | None:
        """Return an answer without what ended it, `None` if nothing did."""
        if written[-1] not in self.stops:
            return None
        text: str = self.tokenizer.decode(written, skip_special_tokens=True)
        return text.partition('"')[0].partition("\n")[0]


def make_frame(tokenizer: Any, instruction: str) -> tuple[str, str]:
    """Return what stands before a title and behind it, as the tokenizer's chat template has it.

    A template without a place for instructions has them in the first turn; where there is no template, titles and
    answers stand in lines.
    """
    turns: list[dict[str, str]] = []
    for title, answer in (REWRITE_EXAMPLE, (_TITLE, "")):
        turns += [{"role": "user", "content": f'"{title}"'}, {"role": "assistant", "content": f'"{answer}"'}]
    turns.pop()
    if tokenizer.chat_template is None:
        text = f'{instruction}\n"{REWRITE_EXAMPLE[0]}" -> "{REWRITE_EXAMPLE[1]}"\n"{_TITLE}" -> '
    else:
        how = {"tokenize": False, "add_generation_prompt": True}
        try:
            text = tokenizer.apply_chat_template([{"role": "system", "content": instruction}, *turns], **how)
        except Exception:  # templates raise what they like, and a syntax of their own
            first = {"role": "user", "content": f"{instruction}\n{turns[0]['content']}"}
            text = tokenizer.apply_chat_template([first, *turns[1:]], **how)
    before, _, after = text.rpartition(_TITLE)
    return before, f'{after}"'
