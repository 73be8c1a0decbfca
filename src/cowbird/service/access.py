"""Who may ask, and how much: tokens that are compared in constant time, and a bucket of titles for each client."""

import hashlib
import hmac
import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

from cowbird.errors import UserError

ADMIN_CLIENT = "admin"
"""The client that may open the scanner anew, if there is one; otherwise every client may."""
MIN_TOKEN_LENGTH = 16
"""Characters of a token at least."""
MAX_TOKEN_FILE_BYTES = 1 << 20
"""Largest file of tokens, in bytes."""
MAX_CLIENTS = 10_000
"""Clients whose rate is known at once; the one that was quiet for longest is forgotten."""
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class AccessTokens:
    """Clients by their tokens; only hashes are kept.

    Args:
        tokens: The token of each client.
    """

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self._digests = {name: _hash_token(token.encode()) for name, token in tokens.items()}

    def __len__(self) -> int:
        return len(self._digests)

    def may_reload(self, client: str) -> bool:
        """Tell whether a client may open the scanner anew."""
        return client == ADMIN_CLIENT or ADMIN_CLIENT not in self._digests

    def find_client(self, header: bytes | None) -> str | None:
        """Return whose token an `Authorization` header holds; `None` if it is nobody's.

        All tokens are compared, each in constant time, so that the time does not tell how much of one was right.
        """
        kind, _, token = (header or b"").partition(b" ")
        digest, found = _hash_token(token.strip()), None
        for name, known in self._digests.items():
            if hmac.compare_digest(digest, known):
                found = name
        return found if kind.lower() == b"bearer" else None


def _hash_token(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def read_tokens(variable: str | None, path: Path | None) -> AccessTokens:
    """Read tokens from an environment variable or a file.

    Args:
        variable: Name of an environment variable that holds one token; its client is `default`.
        path: A file with a client a line: `name token`, or a token alone for `default`. `#` begins a remark.

    Raises:
        UserError: If none or both are given, they hold no token, or one is too short or stands twice.
    """
    if (variable is None) == (path is None):
        raise UserError(
            "A service needs to know who may ask.",
            "Name an environment variable that holds a token (--token-env NAME), or a file (--token-file FILE).",
        )
    if variable is not None:
        text, place = os.environ.get(variable, ""), f"The environment variable '{variable}'"
        if not text.strip():
            raise UserError(f"{place} holds no token.", "Set it to a long random text, such as openssl rand -hex 32.")
    else:
        assert path is not None
        text, place = _read_token_file(path), f"'{path}'"
    tokens: dict[str, str] = {}
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if not words:
            continue
        name, token = words if len(words) == 2 else ("default", words[0])
        if len(words) > 2 or not _NAME.fullmatch(name):
            raise UserError(
                f"{place} should hold a client's name and its token in each line, and one line does not.",
                "Names have letters, digits, '.', '_' and '-' only.",
            )
        if len(token) < MIN_TOKEN_LENGTH:
            raise UserError(
                f"{place} holds a token of fewer than {MIN_TOKEN_LENGTH} characters, for '{name}'.",
                "Make a long random one, such as openssl rand -hex 32.",
            )
        if name in tokens or token in tokens.values():
            raise UserError(f"{place} holds a client or a token twice: '{name}'.", "Give each client its own.")
        tokens[name] = token
    if not tokens:
        raise UserError(f"{place} holds no token.", "Write one line a client: its name and its token.")
    return AccessTokens(tokens)


def _read_token_file(path: Path) -> str:
    hint = "Give --token-file a text file with one line a client: its name and its token."
    try:
        if not path.is_file():
            raise UserError(f"'{path}' is no file.", hint)
        with path.open("rb") as file:
            data = file.read(MAX_TOKEN_FILE_BYTES + 1)
        if len(data) > MAX_TOKEN_FILE_BYTES:
            raise UserError(f"'{path}' is larger than {MAX_TOKEN_FILE_BYTES:,} bytes.", hint)
        return data.decode("ascii")
    except OSError as error:
        raise UserError(f"'{path}' can't be read: {error.strerror or error}.", hint) from None
    except UnicodeDecodeError:
        raise UserError(f"'{path}' holds other characters than ASCII.", hint) from None


class RateLimiter:
    """A bucket for each client, which fills at a rate and holds a burst.

    Args:
        rate: Titles a second; `None` limits nothing.
        burst: Titles that a full bucket holds.
        clock: Tells seconds.
    """

    def __init__(self, rate: float | None, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, titles: int) -> float:
        """Take titles out of a client's bucket.

        A request that is larger than the burst is let through by a full bucket, which is then in debt.

        Returns:
            0 if it held enough; otherwise in how many seconds it will, and nothing is taken.
        """
        if self._rate is None:
            return 0.0
        now = self._clock()
        held, last = self._buckets.pop(client, (float(self._burst), now))
        held = min(float(self._burst), held + (now - last) * self._rate)
        wanted = min(titles, self._burst)
        enough = held >= wanted - 1e-9
        self._buckets[client] = (held - titles if enough else held, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if enough else (wanted - held) / self._rate
