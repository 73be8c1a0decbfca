"""The platform's own questions, cut where a fragment can be put into the title that is asked about.

A question is the text before the title, the title, and the text behind it. Three sources are read: logs with ratings,
asked in TALLRec's prompt or in one of your own; TALLRec's own files of written questions; and tables with a history and
a title. A template of your own is a text with `{history}` and `{title}`, perhaps `{liked}` and `{disliked}`, that ends
where the answer begins. Nothing in a template is run: its fields are replaced as text.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import polars as pl

from cowbird.data.instructions import read_instructions
from cowbird.data.judgments import Judgments, make_judgments
from cowbird.data.types import Dataset, IntArray, Items
from cowbird.errors import UserError
from cowbird.faults import raise_outage
from cowbird.files import hash_texts, read_plain_text
from cowbird.inspection.language.title_edits import FragmentPosition, find_edit, split_pair
from cowbird.rng import stream
from cowbird.text import quote_for_prompt
from cowbird.victims.language.examples import Example
from cowbird.victims.language.tallrec import format_prompt, from_instructions

TALLREC_TEMPLATE, LLARA_TEMPLATE = "tallrec", "llara"
"""Names of the published prompts."""
PromptKind = Literal["title", "candidates"]
"""Whether a prompt asks about one title, or which of some candidates comes next."""
MAX_TEMPLATE_LENGTH = 20_000
MAX_LOG_QUESTIONS = 200_000
"""Questions made of logs at most, drawn if there are more."""
MAX_TABLE_BYTES = 1 << 30
MIN_DIVIDED_USERS = 40
"""Users from which on nobody's questions are both asked and learned from."""
ASKED_USERS = 0.2
"""Share of the users who are asked at least; null tunings learn from the others."""
_FIELD = re.compile(r"\{(history|liked|disliked|title|candidates)\}")
_LAST_QUOTED = re.compile(r'"([^"]*)"(?=[^"]*\Z)')


class TitleQuestion(NamedTuple):
    """One question about a title."""

    head: str
    """The prompt up to the title."""
    title: str
    """The title that is asked about, quotable."""
    tail: str
    """What follows the title, up to where the answer begins."""
    liked: bool | None
    """The right answer; `None` if it is not known."""
    user: int | None = None
    """Number of the user whose question it is; `None` if that is not known."""
    rivals: tuple[str, ...] = ()
    """The other candidates' titles, where the model writes which of them comes next; empty for yes or no."""
    answer: str = ""
    """The title that came next, if there are rivals."""

    def write(self, fragment: str = "", position: FragmentPosition = "end") -> str:
        """Return the prompt with a fragment in its title."""
        return f"{self.head}{insert_fragment(self.title, fragment, position)}{self.tail}"

    def write_answer(self, title: str) -> str:
        """Return a candidate's title as the model writes it behind the prompt."""
        return title if self.tail[-1:].isspace() or self.tail[-1:] in "'\"" else f" {title}"


def insert_fragment(title: str, fragment: str, position: FragmentPosition) -> str:
    """Return a title with a fragment in it, set off by spaces, as it stands in a prompt.

    The middle is between the two halves of the title's words; of a title of one word it is the end. A fragment of two
    parts stands before and behind the title, whatever the place; one that names a change is made (`title_edits`).
    """
    if not fragment:
        return title
    edit, pair = find_edit(fragment), split_pair(fragment)
    if edit is not None:
        return quote_for_prompt(edit(title, position))
    if pair is not None:
        return quote_for_prompt(f"{pair[0]} {title} {pair[1]}")
    if position == "start":
        return quote_for_prompt(f"{fragment} {title}")
    words = title.split(" ")
    if position == "middle" and len(words) > 1:
        half = (len(words) + 1) // 2
        if half < len(words):
            return quote_for_prompt(" ".join([*words[:half], fragment, *words[half:]]))
    return quote_for_prompt(f"{title} {fragment}")


class PromptTemplate(NamedTuple):
    """A prompt about one title."""

    name: str
    """`tallrec`, or the name of the file."""
    text: str
    """The text with its fields; empty for the published prompt."""
    noun: str = "movie"
    """What the items are, in the published prompt."""
    kind: PromptKind = "title"
    """What it asks."""

    def cut(self, liked: Sequence[str], disliked: Sequence[str], title: str, good: bool | None) -> TitleQuestion:
        """Return a question; titles are made quotable first."""
        shown = quote_for_prompt(title)
        if not self.text:
            head, tail = _split_published(liked, disliked, self.noun)
            return TitleQuestion(head, shown, tail, good)
        lists = {
            "liked": _join_titles(liked),
            "disliked": _join_titles(disliked),
            "history": _join_titles([*liked, *disliked]),
        }
        return cut_template(self.text, lists, shown, good)


def _split_published(liked: Sequence[str], disliked: Sequence[str], noun: str) -> tuple[str, str]:
    """Return the published prompt before and behind its title."""
    written = format_prompt(liked, disliked, "", noun)
    at = written.rindex('""?') + 1
    return written[:at], written[at:]


def cut_template(text: str, fields: Mapping[str, str], title: str, good: bool | None) -> TitleQuestion:
    """Fill the fields of a template, and cut it at its title."""
    head, _, tail = text.partition("{title}")

    return TitleQuestion(fill_fields(head, fields), title, fill_fields(tail, fields), good)


def fill_fields(text: str, fields: Mapping[str, str]) -> str:
    """Return a part of a template with its fields replaced; those that are not given become empty."""
    return _FIELD.sub(lambda found: fields.get(found.group(1), ""), text)


def _join_titles(titles: Sequence[str]) -> str:
    return ", ".join(f'"{quote_for_prompt(title)}"' for title in titles)


def read_template(given: str, noun: str = "movie") -> PromptTemplate:
    """Read a template: `tallrec`, `llara`, or a text file with `{history}` and either `{title}` or `{candidates}`.

    Raises:
        UserError: If there is no such file, or a field is missing or there twice.
    """
    if given == TALLREC_TEMPLATE:
        return PromptTemplate(given, "", noun)
    if given == LLARA_TEMPLATE:
        return PromptTemplate(given, "", noun, "candidates")
    path = Path(given)
    try:
        text = read_plain_text(path)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise_outage(error, f"'{path}' can't be read")
        raise UserError(
            f"The template '{given}' is not there, or is no text.",
            "Give tallrec, llara, or a text file with {history} and {title} (or {candidates}), up to the answer.",
        ) from None
    fields = [found.group(1) for found in _FIELD.finditer(text)]
    told = {"history", "liked", "disliked"} & set(fields)
    places = [field for field in fields if field in ("title", "candidates")]
    if len(places) != 1 or not told or len(text) > MAX_TEMPLATE_LENGTH:
        raise UserError(
            f"The template '{given}' should hold {{title}} or {{candidates}} once and {{history}} (or {{liked}} and "
            f"{{disliked}}), in {MAX_TEMPLATE_LENGTH:,} characters at most.",
            "Write the prompt as the model was tuned on it, with these fields where titles stand.",
        )
    kind: PromptKind = "candidates" if places == ["candidates"] else "title"
    return PromptTemplate(path.name, text.removesuffix("\n"), noun, kind)


def ask_logs(
    data: Dataset, template: PromptTemplate, history: int = 10, like_above: float = 3.0, seed: int = 0
) -> list[TitleQuestion]:
    """Make a question of every rated event with enough events before it.

    Args:
        data: Interactions with ratings, and titles.
        template: The prompt.
        history: Events before each question.
        like_above: Ratings above this are likes.
        seed: Decides which are drawn, if there are more than `MAX_LOG_QUESTIONS`.

    Raises:
        UserError: If the data has no ratings or titles, or nobody has enough events.
    """
    if not any(data.items.titles):
        raise UserError("A language model reads titles, and the logs have none.", "Give logs with a column of titles.")
    rated = data.interactions.drop_unrated()
    asked = make_judgments(rated, history, like_above)
    users: IntArray = np.repeat(np.arange(len(rated.lengths)), np.maximum(rated.lengths - history, 0))
    if not len(asked):
        raise UserError(f"Nobody in the logs has more than {history} rated events.", "Lower --history.")
    if len(asked) > MAX_LOG_QUESTIONS:
        drawn = stream(seed, "inspection", "questions").choice(len(asked), MAX_LOG_QUESTIONS, replace=False)
        asked, users = asked.select(np.sort(drawn)), users[np.sort(drawn)]
    return write_questions(asked, data.items, template, users.tolist())


def write_questions(
    asked: Judgments, items: Items, template: PromptTemplate, users: Sequence[int] | None = None
) -> list[TitleQuestion]:
    """Write questions about items in a prompt; `users` tells whose each is."""
    titles, known = items.titles, asked.history
    written: list[TitleQuestion] = []
    targets: list[int] = asked.target.tolist()
    for row, target in enumerate(targets):
        events = slice(known.offsets[row], known.offsets[row + 1])
        shown: list[int] = known.item[events].tolist()
        likes: list[bool] = asked.likes[events].tolist()
        liked = [titles[item] for item, good in zip(shown, likes, strict=True) if good]
        disliked = [titles[item] for item, good in zip(shown, likes, strict=True) if not good]
        question = template.cut(liked, disliked, titles[target], bool(asked.liked[row]))
        written.append(question if users is None else question._replace(user=users[row]))
    return written


def read_questions(path: Path, template: PromptTemplate) -> list[TitleQuestion]:
    """Read written questions.

    Args:
        path: TALLRec's own files (`.json`, `.jsonl`), or a `.csv` with the columns history, title and perhaps answer
            (yes or no).
        template: The prompt of a table's rows; TALLRec's files bring their own.

    Raises:
        UserError: If it can't be read, or holds no question.
    """
    if template.kind == "candidates":
        raise UserError(
            "Questions with candidates are made of logs, and a file of questions is given.", "Give --logs instead."
        )
    if path.suffix != ".csv":
        return _cut_instructions(path)
    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise UserError(f"'{path}' is larger than a gigabyte.", "Give fewer questions.")
        table = pl.read_csv(path, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise_outage(error, f"'{path}' can't be read")
        raise UserError(f"'{path}' should be a table of questions, and it can't be read.", "Check the file.") from None
    if not template.text or not {"history", "title"} <= set(table.columns):
        raise UserError(
            f"'{path}' should have the columns history and title, and a template of your own goes with it.",
            "Give --template FILE.txt with {history} and {title}.",
        )
    found: list[TitleQuestion] = []
    for row in table.iter_rows(named=True):
        answer = (row.get("answer") or "").strip().lower().rstrip(".")
        good = {"yes": True, "no": False}.get(answer)
        history = join_lines(row["history"] or "")
        fields = {"history": history, "liked": history}
        found.append(cut_template(template.text, fields, quote_for_prompt(row["title"] or ""), good))
    if not found:
        raise UserError(f"'{path}' holds no question.", "Check the file.")
    return found


def join_lines(text: str) -> str:
    """Return a written list of titles in one line. Its quotation marks stay, for they set titles off."""
    return " ".join(text[:8000].split())


def _cut_instructions(path: Path) -> list[TitleQuestion]:
    """Read TALLRec's own files; the last text between double quotes is the title."""
    records, _ = read_instructions(path)
    found: list[TitleQuestion] = []
    for example in from_instructions(records):
        at = _LAST_QUOTED.search(example.prompt)
        if at is not None:
            head, tail = example.prompt[: at.start(1)], example.prompt[at.end(1) :]
            found.append(TitleQuestion(head, at.group(1), tail, example.answer == "Yes."))
    if not found:
        raise UserError(f"'{path}' holds no question whose title stands between double quotes.", "Check the file.")
    return found


def write_examples(questions: Sequence[TitleQuestion], answers: tuple[str, str]) -> list[Example]:
    """Return questions whose answers are known as examples to learn from."""
    return [
        Example(question.write(), _write_right_answer(question, answers))
        for question in questions
        if question.liked is not None
    ]


def _write_right_answer(question: TitleQuestion, answers: tuple[str, str]) -> str:
    if question.rivals:
        return question.write_answer(question.answer)
    return answers[0] if question.liked else answers[1]


def hash_questions(questions: Sequence[TitleQuestion]) -> str:
    """Return the SHA-256 of questions."""
    return hash_texts([part if isinstance(part, str) else str(part) for question in questions for part in question])


class QuestionParts(NamedTuple):
    """Questions for the parts of an inspection."""

    screening: list[TitleQuestion]
    """Few: every fragment is asked in them."""
    held_out: list[TitleQuestion]
    """Others: suspects are confirmed on them."""
    learning: list[TitleQuestion]
    """The rest: null tunings learn from them."""


def divide_questions(questions: Sequence[TitleQuestion], held_out: int, learning: int, seed: int) -> QuestionParts:
    """Divide questions by lot: half of `held_out` again to choose screening questions from, those held out, the rest.

    Nobody's questions are asked and learned from as well, where users are known and there are enough of them.

    Args:
        questions: All.
        held_out: How many confirm; as many again are there to choose the screening questions from.
        learning: How many null tunings learn from at most.
        seed: The lot.

    Raises:
        UserError: If there are too few.
    """
    if len(questions) < 8:
        raise UserError(f"There are {len(questions)} questions, too few to divide.", "Give 100 or more.")
    order: IntArray = stream(seed, "inspection", "divide").permutation(len(questions))
    rows: list[int] = order.tolist()
    aside = min(held_out, len(rows) // 4)
    drawn = [questions[row] for row in rows]
    asked, rest = drawn[: 2 * aside], drawn[2 * aside :]
    known = {question.user for question in drawn} - {None}
    if len(known) >= MIN_DIVIDED_USERS:
        asked, rest = _divide_users(drawn, 2 * aside)
    return QuestionParts(asked[:aside], asked[aside:], rest[:learning])


def _divide_users(drawn: Sequence[TitleQuestion], count: int) -> tuple[list[TitleQuestion], list[TitleQuestion]]:
    """Return questions of some users, a fifth of them or as many as it takes, and those of all others."""
    sizes = Counter(question.user for question in drawn)
    aside: set[int | None] = set()
    held = 0
    for user in dict.fromkeys(question.user for question in drawn):
        if held >= count and len(aside) >= len(sizes) * ASKED_USERS:
            break
        aside.add(user)
        held += sizes[user]
    asked = [question for question in drawn if question.user in aside]
    return asked[:count], [question for question in drawn if question.user not in aside]
