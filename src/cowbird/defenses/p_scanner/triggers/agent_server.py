"""Where an agent's language model is asked: an address, a key and a log, of which a spec can say nothing.

A spec may be a stranger's. It names the model and how it is asked. The server, the variable that holds the key and
whether exchanges are logged come from the command line, from the environment, or from Python code:

| option | environment | what |
| --- | --- | --- |
| `--agent-url` | `COWBIRD_AGENT_URL`, or else `OPENAI_BASE_URL` | the server |
| `--agent-key-env` | `COWBIRD_AGENT_KEY_ENV` | the variable that holds the key |
| `--agent-log` | `COWBIRD_AGENT_LOG` | whether exchanges are kept, in the folder of the run |

A key goes to https and to this machine alone, and no redirect is followed.
"""

import ipaddress
import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from cowbird.errors import OutageError, UserError

URL_VARIABLE, KEY_ENV_VARIABLE, LOG_VARIABLE = "COWBIRD_AGENT_URL", "COWBIRD_AGENT_KEY_ENV", "COWBIRD_AGENT_LOG"
"""Environment variables that say where an agent is asked."""
OPENAI_URL, OPENAI_KEY_ENV = "https://api.openai.com/v1", "OPENAI_API_KEY"
"""OpenAI's own server, and the variable that tools of its kind read."""
NO_KEY = "none"
"""What stands for the name of a variable where no key is to be sent."""
AGENT_LOG_FILE = "agent-log.jsonl"
"""What the log is called in the folder of a run or a fit."""
SERVER_FIELDS = {
    "base_url": f"--agent-url (or {URL_VARIABLE})",
    "api_key_env": f"--agent-key-env (or {KEY_ENV_VARIABLE})",
    "log": f"--agent-log (or {LOG_VARIABLE}=1)",
}
"""What a spec must not name, and what says it instead."""
_ADDRESS = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?(/[\w.~/%-]*)?", re.ASCII | re.IGNORECASE
)
"""An address without a user, a query or anything else that two libraries could read in two ways."""

_log_folders: list[Path] = []


def check_address(url: str) -> str:
    """Return an address of a server.

    Raises:
        ValueError: If it is none, or holds more than a host, a port and a path.
    """
    if not _ADDRESS.fullmatch(url):
        raise ValueError(
            "the address of a server is http:// or https://, a host, perhaps a port and a path, such as "
            "http://localhost:8000/v1, without a user, a password or a query"
        )
    return url


def is_loopback(url: str) -> bool:
    """Tell whether a checked address is one of this machine: `localhost`, 127.0.0.0/8 or [::1], written as such."""
    found = _ADDRESS.fullmatch(url)
    host = found["host"].strip("[]").lower() if found else ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class AgentServer(BaseModel):
    """Where an agent's language model is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    url: Annotated[str, AfterValidator(check_address)] = OPENAI_URL
    """Address of an OpenAI-compatible server, such as http://localhost:8000/v1."""
    key_env: str = OPENAI_KEY_ENV
    """Environment variable that holds the key; `none` sends none. A server of your own may need none."""
    log: Path | None = None
    """File that every exchange is appended to as a line of JSON, without the key."""

    @property
    def key(self) -> str:
        """The key, empty if there is none."""
        return "" if self.key_env == NO_KEY else os.environ.get(self.key_env, "").strip()

    def check_key(self) -> str:
        """Return the key, empty if there is none.

        Raises:
            UserError: If it is none that can be sent, OpenAI's server needs one, or it would go to another machine in
                clear text.
        """
        key = self.key
        if not (key.isascii() and key.isprintable()):
            raise OutageError(f"What {self.key_env} holds is no key.", "Set it to the key alone.")
        if not key and self.url == OPENAI_URL:
            raise OutageError(
                f"There is no key in the environment variable {self.key_env}.",
                f"Set it, name another one with {SERVER_FIELDS['api_key_env']}, or name a server of your own, which "
                f"may need none, with {SERVER_FIELDS['base_url']}.",
            )
        if key and self.url[:6].lower() != "https:" and not is_loopback(self.url):
            raise OutageError(
                f"The key in {self.key_env} would go to {self.url} in clear text.",
                "Give an https address, or a server on this machine (localhost, 127.0.0.1 or [::1]), perhaps through a "
                f"tunnel. --agent-key-env {NO_KEY} sends no key.",
            )
        return key


def read_agent_server() -> AgentServer | None:
    """Return the server that the environment names, which the command line sets; `None` if it names none.

    Raises:
        UserError: If the address is none.
    """
    url = os.environ.get(URL_VARIABLE) or os.environ.get("OPENAI_BASE_URL")
    return make_agent_server(url, None) if url else None


def make_agent_server(url: str | None, key_env: str | None) -> AgentServer:
    """Return a server; what is `None` is what the environment says, or else OpenAI's.

    Raises:
        UserError: If the address is none.
    """
    url = url or os.environ.get(URL_VARIABLE) or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
    try:
        check_address(url)
    except ValueError as error:
        raise UserError(f"'{url}' is no address: {error}.", f"Mend {SERVER_FIELDS['base_url']}.") from None
    key_env = key_env or os.environ.get(KEY_ENV_VARIABLE) or OPENAI_KEY_ENV
    return AgentServer(url=url, key_env=key_env)


def find_log() -> Path | None:
    """Return the file that exchanges are kept in, if they are: in the folder that `keep_logs_in` says."""
    wanted = os.environ.get(LOG_VARIABLE, "").lower() not in ("", "0", "false", "no")
    return _log_folders[-1] / AGENT_LOG_FILE if wanted and _log_folders else None


@contextmanager
def set_agent_environment(url: str | None, key_env: str | None, log: bool) -> Generator[None]:
    """Say for a while where agents are asked, here and in processes that are started meanwhile.

    Args:
        url: The server; `None` leaves what the environment says.
        key_env: The variable that holds the key; `None` leaves it, too.
        log: Whether exchanges are kept.
    """
    given = {URL_VARIABLE: url, KEY_ENV_VARIABLE: key_env, LOG_VARIABLE: "1" if log else None}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update({name: value for name, value in given.items() if value is not None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def keep_logs_in(folder: Path) -> Generator[None]:
    """Say in which folder exchanges are logged, if they are: the one that `--out` names."""
    _log_folders.append(folder)
    try:
        yield
    finally:
        _log_folders.pop()
