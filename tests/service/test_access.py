"""Tokens and rates."""

import pytest

from cowbird.errors import UserError
from cowbird.service import access
from cowbird.service.access import AccessTokens, RateLimiter, read_tokens

LONG = "0123456789abcdef"


def test_a_client_is_found_by_its_token_alone():
    tokens = AccessTokens({"shop": LONG, "admin": LONG + "g"})
    assert tokens.find_client(f"Bearer {LONG}".encode()) == "shop"
    assert tokens.find_client(f"bearer  {LONG}g".encode()) == "admin"
    for header in (None, b"", b"Bearer", b"Bearer ", LONG.encode(), f"Basic {LONG}".encode(), b"Bearer \xff\x00"):
        assert tokens.find_client(header) is None
    assert tokens.may_reload("admin") and not tokens.may_reload("shop")
    assert AccessTokens({"shop": LONG}).may_reload("shop")


def test_every_token_is_compared(monkeypatch):
    compared = []
    monkeypatch.setattr(access.hmac, "compare_digest", lambda one, other: compared.append(1) or one == other)
    assert AccessTokens({"a": LONG, "b": LONG + "2", "c": LONG + "3"}).find_client(f"Bearer {LONG}".encode()) == "a"
    assert len(compared) == 3


def test_tokens_are_read_from_a_file_or_a_variable(tmp_path, monkeypatch):
    path = tmp_path / "tokens"
    path.write_text(f"# clients\nshop {LONG}  # the shop\n\nadmin {LONG}x\n")
    assert len(read_tokens(None, path)) == 2
    monkeypatch.setenv("A_TOKEN", LONG)
    assert read_tokens("A_TOKEN", None).find_client(f"Bearer {LONG}".encode()) == "default"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "holds no token"),
        (b"shop short", "fewer than 16"),
        (f"shop {LONG}\nshop {LONG}1".encode(), "twice"),
        (f"shop {LONG}\nother {LONG}".encode(), "twice"),
        (f"a b {LONG}".encode(), "does not"),
        (f"sh\x1bop {LONG}".encode(), "does not"),
        (f"sh\u00f6p {LONG}".encode(), "ASCII"),
        (b"x" * (access.MAX_TOKEN_FILE_BYTES + 1), "larger"),
    ],
)
def test_bad_files_of_tokens_are_refused(tmp_path, text, said):
    (tmp_path / "tokens").write_bytes(text)
    with pytest.raises(UserError, match=said) as caught:
        read_tokens(None, tmp_path / "tokens")
    assert caught.value.hint and LONG not in str(caught.value)


def test_missing_tokens_are_refused(tmp_path):
    for variable, path in (
        (None, None),
        ("X", tmp_path),
        ("NO_SUCH_VARIABLE", None),
        (None, tmp_path),
        (None, tmp_path / "no"),
    ):
        with pytest.raises(UserError):
            read_tokens(variable, path)


def test_a_bucket_fills_at_its_rate():
    now = [0.0]
    limiter = RateLimiter(10.0, 20, lambda: now[0])
    assert limiter.take("a", 20) == 0
    assert limiter.take("a", 5) == pytest.approx(0.5)
    assert limiter.take("b", 5) == 0
    now[0] = 0.5
    assert limiter.take("a", 5) == 0
    now[0] = 100.0
    assert limiter.take("a", 30) == 0, "a full bucket lets a larger request through"
    assert limiter.take("a", 1) == pytest.approx(1.1), "and is in debt then"


def test_clients_that_are_quiet_are_forgotten(monkeypatch):
    monkeypatch.setattr(access, "MAX_CLIENTS", 3)
    limiter = RateLimiter(1.0, 5, lambda: 0.0)
    for client in "abcd":
        limiter.take(client, 5)
    assert limiter.take("a", 5) == 0 and limiter.take("d", 5) > 0
