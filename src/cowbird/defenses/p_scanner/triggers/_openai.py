"""A language model behind an OpenAI-compatible server: how it is asked, again where that may help, and what it is told.

Only fields that local servers know as well are sent. A key comes from the environment and goes nowhere but to the
server: not into the log, not into a message, even where the server repeats it.
"""

import importlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cowbird.defenses.p_scanner.triggers.agent_prompts import (
    Message,
    ProposalTask,
    UnusableError,
    parse_answer,
    write_correction,
    write_question,
)
from cowbird.defenses.p_scanner.triggers.agent_server import AgentServer, is_loopback
from cowbird.defenses.p_scanner.triggers.trigger_families import Recipe
from cowbird.errors import OutageError, UserError
from cowbird.ownership import open_own_file
from cowbird.text import quote_json

TRIGGERS_PER_REQUEST = 40
"""Most triggers that are asked for at once."""
LONGEST_PAUSE = 30.0
"""Most seconds between two attempts."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where a model is, and how it is asked; see `cowbird.defenses.p_scanner.triggers.agent.OpenAIAgent`."""

    model: str
    at: AgentServer
    temperature: float | None
    retries: int
    timeout: float

    @property
    def place(self) -> str:
        """What it is called in messages."""
        return f"The agent's server at {self.at.url}"

    @property
    def key(self) -> str:
        """The key, empty if there is none."""
        return self.at.key

    def hide(self, text: str) -> str:
        """Return a text without the key; what is shorter than 8 characters is taken for none."""
        return text.replace(self.key, "\u2026") if len(self.key) >= 8 else text


class UnansweredError(Exception):
    """An attempt that failed, and may be made again after `pause` seconds."""

    def __init__(self, problem: UserError, pause: float = 0.0) -> None:
        super().__init__(problem.message)
        self.problem, self.pause = problem, pause


def converse(server: Server, task: ProposalTask, rng: np.random.Generator) -> tuple[list[Recipe], list[str]]:
    """Ask for triggers until there are enough, or attempts have failed too often.

    Args:
        server: Whom to ask. An attempt that fails, or brings fewer than asked for, is one of its `retries`.
        task: What is wanted.
        rng: Draws titles that are shown, and the seed that is sent.

    Returns:
        The recipes, at most as many as are wanted, and why answers were not taken.

    Raises:
        UserError: If the server refuses; or if it can't be reached, fails or stays silent, and there is no recipe yet.
    """
    taken: list[Recipe] = []
    refused: list[str] = []
    failed = 0
    with make_client(server) as connected:
        messages: list[Message] = write_question(task, min(TRIGGERS_PER_REQUEST, task.wanted), taken, rng)
        while True:
            number = min(TRIGGERS_PER_REQUEST, task.wanted - len(taken))
            answer, pause = "", 0.0
            try:
                answer = ask(connected, server, messages, rng)
                new, reasons = parse_answer(answer, task, taken)
                taken += new[:number]
                refused += reasons
                record(server, messages, {"answer": answer, "taken": min(len(new), number), "refused": reasons})
                short = len(new) < number
                messages = write_question(task, min(TRIGGERS_PER_REQUEST, task.wanted - len(taken)), taken, rng)
            except UnusableError as error:
                record(server, messages, {"answer": answer, "taken": 0, "refused": [str(error)]})
                short = True
                refused.append(str(error))
                messages = write_correction(messages, answer, str(error))
            except UnansweredError as error:
                record(server, messages, {"error": str(error)})
                if failed == server.retries and not taken:
                    raise error.problem from None
                short, pause = True, error.pause
                refused.append(str(error))
            except UserError as error:
                record(server, messages, {"error": error.message})
                raise
            failed += short
            if len(taken) == task.wanted or failed > server.retries:
                return taken, refused
            time.sleep(min(pause * (1 << max(failed - 1, 0)), LONGEST_PAUSE))


def make_client(server: Server) -> Any:
    """Return an OpenAI client that makes one attempt a request.

    Raises:
        UserError: If the library or the key is missing, or the key can't be one.
    """
    key = server.at.check_key()
    library = _import_library()
    # A key goes nowhere but to the server: no redirect is followed, and no proxy stands before this machine's own.
    direct = is_loopback(server.at.url)
    try:
        made = library.DefaultHttpxClient(follow_redirects=False, trust_env=not direct, timeout=server.timeout)
        return library.OpenAI(api_key=key or "none", base_url=server.at.url, http_client=made, max_retries=0)
    except Exception as error:  # an address that is none, here or as a proxy in the environment
        raise OutageError(
            f"No client can be made: {_reason(error, server)}", "Check --agent-url and proxies."
        ) from None


def _import_library() -> Any:
    try:
        return importlib.import_module("openai")
    except ImportError as error:
        raise OutageError(f"This agent needs {error.name}.", "Install it: pip install 'cowbird[agent]'.") from None


def ask(connected: Any, server: Server, messages: Sequence[Message], rng: np.random.Generator) -> str:
    """Make one attempt, with a seed of its own, and return the text of the answer, empty if there is none.

    Raises:
        UnansweredError: If another attempt may succeed: no connection, no answer in time, 408, 409, 429, 5xx.
        UserError: If none will.
    """
    library = _import_library()
    more = {} if server.temperature is None else {"temperature": server.temperature}
    more["seed"] = int(rng.integers(2**31))
    try:
        made = connected.chat.completions.create(model=server.model, messages=list(messages), **more)
        content = made.choices[0].message.content
    except library.APITimeoutError:
        silent = OutageError(f"{server.place} was silent for {server.timeout:g} seconds.", "Raise timeout.")
        raise UnansweredError(silent) from None
    except library.APIConnectionError:
        raise UnansweredError(
            OutageError(f"{server.place} can't be reached.", "Is it up? Check --agent-url."), 0.5
        ) from None
    except library.APIStatusError as error:
        raise _make_refusal(error, server) from None
    except (library.APIError, ValueError, AttributeError, TypeError, LookupError):
        return ""  # an answer, but none of the kind that was agreed on
    return server.hide(content) if isinstance(content, str) else ""


def _make_refusal(error: Any, server: Server) -> UserError | UnansweredError:
    """Return what is to be raised for a status."""
    status = int(error.status_code)
    if 300 <= status < 400:
        where = quote_json(str(error.response.headers.get("location", ""))[:200])
        return OutageError(
            f"{server.place} sends requests on to {where} ({status}), and a key follows nobody.",
            "Give the address that it should go to, if you trust it: --agent-url.",
        )
    if status in (401, 403):
        return OutageError(f"{server.place} refuses the key ({status}).", f"Check {server.at.key_env}.")
    if status == 404:
        return OutageError(
            f"{server.place} has no model {quote_json(server.model)} (404).", "Check model and --agent-url."
        )
    if status == 429:
        busy = OutageError(f"{server.place} takes no more requests (429).", "Wait, or check what the key may use.")
        return UnansweredError(busy, _read_pause(error.response.headers))
    if status in (408, 409) or status >= 500:
        return UnansweredError(OutageError(f"{server.place} fails ({status}).", "See its own log."), 0.5)
    return UserError(
        f"{server.place} refuses the request ({status}): {_reason(error, server)}", "Check model and temperature."
    )


def _read_pause(headers: Mapping[str, str]) -> float:
    """Return the seconds that a server asks to wait, at most `LONGEST_PAUSE`; 1 if it does not say."""
    try:
        told = float(headers["retry-after-ms"]) / 1000 if "retry-after-ms" in headers else float(headers["retry-after"])
    except (KeyError, ValueError):
        return 1.0
    return min(told, LONGEST_PAUSE) if told >= 0 else 1.0


def _reason(error: object, server: Server) -> str:
    return quote_json(server.hide(str(error))[:200])


def record(server: Server, messages: Sequence[Message], outcome: Mapping[str, object]) -> None:
    """Append an exchange to the log, if there is one. The key is in none of it.

    Raises:
        UserError: If it can't be written.
    """
    log = server.at.log
    if log is None:
        return
    line = json.dumps({"model": server.model, "messages": list(messages), **outcome})
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with open_own_file(log, "ab") as file:
            file.write(line.encode() + b"\n")
    except OSError as error:
        raise OutageError(f"The log '{log}' can't be written: {error.strerror}.", "Choose another folder.") from None
