"""The HTTP interface: verdicts, refusals in one form, and a log that holds what was answered."""

import asyncio
import json
import os
import random

import pytest

from cowbird.errors import UserError
from cowbird.service import state as service_state
from cowbird.service.access import AccessTokens
from cowbird.service.audit import AUDIT_FILE, AuditLog
from doubles.service import TOKEN, ask, start_state

TOKENS = AccessTokens({"shop": TOKEN})


def run(folder, *requests, tokens=TOKENS, before=None, **limits):
    """Answer requests one after another; each is what `ask` takes."""

    async def work():
        with AuditLog(folder, 1 << 20) as log:
            state = await start_state(log, tokens, **limits)
            if before is not None:
                before(state)
            found = [
                await ask(state, *request) if isinstance(request, tuple) else await ask(state, **request)
                for request in requests
            ]
            await state.close()
            return found

    found = asyncio.run(work())
    return found[0] if len(found) == 1 else found


def read_log(folder):
    return [json.loads(line) for line in (folder / AUDIT_FILE).read_text().splitlines()]


def test_a_title_is_judged_and_logged(tmp_path, inline):
    status, headers, told = run(tmp_path, ("POST", "/v1/title", {"title": "mug \u202e evil", "id": 7}))
    assert status == 200 and headers["cache-control"] == "no-store"
    assert (told["tier"], told["span"], told["start"], told["end"], told["threshold"]) == (
        "flagged",
        "evil",
        6,
        10,
        2.0,
    )
    assert told["id"] == 7 and told["reason"] == "a word" and told["scanner_sha256"] == "ab" * 32
    opened, logged, stopped = read_log(tmp_path)
    assert (opened["event"], stopped["event"]) == ("scanner", "stopped")
    assert logged["number"] == told["number"] and logged["request"] == told["request"] == headers["x-request-id"]
    assert (logged["title"], logged["client"], logged["tier"], logged["id"]) == (
        "mug \u202e evil",
        "shop",
        "flagged",
        7,
    )


def test_several_titles_are_judged_in_order(tmp_path, inline):
    body = {"titles": ["mug", {"title": "evil", "id": "a"}, "odd", "fail", "", "mug"]}
    status, _, told = run(tmp_path, ("POST", "/v1/titles", body))
    verdicts = told["verdicts"]
    assert status == 200
    assert [each["tier"] for each in verdicts] == ["none", "flagged", "review", "unjudged", "none", "none"]
    assert verdicts[3]["reason"].startswith("could not be judged: ")
    assert "RuntimeError: it <U+202E>failed" in verdicts[3]["reason"]
    assert [each["number"] for each in verdicts] == list(range(2, 8))
    assert verdicts[4]["score"] is None and verdicts[4]["reason"] == "there is no text to judge"


def test_allowed_texts_are_not_flagged(tmp_path, inline, monkeypatch):
    from doubles.service import make_served

    async def open_allowing(source):
        return make_served(["evil mug"])

    monkeypatch.setattr(service_state, "open_in_process", open_allowing)
    _, _, told = run(tmp_path, ("POST", "/v1/titles", {"titles": ["evil mug", "evil cup"]}))
    assert [each["tier"] for each in told["verdicts"]] == ["allowed", "flagged"]


REFUSALS = {
    "no token": ({"headers": {"authorization": None}}, 401, "token"),
    "another's token": ({"headers": {"authorization": "Bearer nobody"}}, 401, "token"),
    "no JSON by its type": ({"headers": {"content-type": "text/plain"}}, 415, "media_type"),
    "compressed": ({"headers": {"content-encoding": "gzip"}}, 415, "encoding"),
    "large by its length": ({"headers": {"content-length": "999999999"}}, 413, "too_large"),
    "length of many digits": ({"headers": {"content-length": "9" * 5000}}, 413, "too_large"),
    "large": ({"body": b"x" * 3000}, 413, "too_large"),
    "no JSON": ({"body": b"{"}, 422, "form"),
    "nothing": ({"body": b""}, 422, "form"),
    "no UTF-8": ({"body": b'{"title": "\xff"}'}, 422, "form"),
    "half a character": ({"body": b'{"title": "\\ud800"}'}, 422, "form"),
    "deep": ({"body": b'{"title":' + b"[" * 2000}, 422, "form"),
    "another field": ({"body": {"title": "a", "\u202eevil": 1}}, 422, "form"),
    "a number": ({"body": {"title": 7}}, 422, "form"),
    "a title twice": ({"body": b'{"title": "a", "ti\\u0074le": "b"}'}, 422, "form"),
    "an id that is an object": ({"body": {"title": "a", "id": {}}}, 422, "form"),
    "a long number": ({"body": b'{"title": "a", "id": ' + b"9" * 1500 + b"}"}, 422, "form"),
    "a long title": ({"body": {"title": "x" * 51}}, 422, "long_title"),
    "no such path": ({"path": "/v2/\x1b[31m"}, 404, "path"),
    "no such method": ({"method": "GET"}, 405, "method"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_has_one_form(tmp_path, inline, name):
    change, status, code = REFUSALS[name]
    request = {"method": "POST", "path": "/v1/title", "body": {"title": "mug"}} | change
    found, headers, told = run(tmp_path, request, max_body=2048, max_title=50)
    assert (found, told["error"]["code"]) == (status, code), told
    assert set(told["error"]) == {"code", "message", "hint"} and told["error"]["message"]
    assert "\u202e" not in json.dumps(told, ensure_ascii=False) and "\x1b" not in told["error"]["message"]
    assert "constrained" not in told["error"]["message"], "a name of pydantic's"
    assert len(read_log(tmp_path)) == 2, "nothing was judged"
    assert headers.get("WWW-Authenticate", headers.get("www-authenticate")) == ("Bearer" if status == 401 else None)


def test_too_many_titles_are_refused(tmp_path, inline):
    status, _, told = run(tmp_path, ("POST", "/v1/titles", {"titles": ["a"] * 6}), max_titles=5)
    assert (status, told["error"]["code"]) == (413, "too_many")


def test_a_body_that_comes_slowly_or_not_to_its_end_is_given_up(tmp_path, inline):
    slow = {"method": "POST", "path": "/v1/title", "parts": [b"{"]}
    gone = {"method": "POST", "path": "/v1/title", "parts": [b"{", None]}
    (first, _, told), (second, _, _) = run(tmp_path, slow, gone, read_timeout=0.05)
    assert (first, told["error"]["code"], second) == (408, "slow", 400)


def test_a_client_that_is_too_fast_is_told_when_to_come_back(tmp_path, inline):
    request = ("POST", "/v1/titles", {"titles": ["a"] * 5})
    (first, _, _), (second, headers, told) = run(tmp_path, request, request, rate=2.0, burst=5)
    assert (first, second, told["error"]["code"]) == (200, 429, "rate")
    assert headers.get("retry-after", headers.get("Retry-After")) == "3"


def test_a_full_queue_and_late_verdicts_are_503(tmp_path, inline):
    inline.seconds = 0.2
    request = ("POST", "/v1/titles", {"titles": [str(nth) for nth in range(5)]})
    status, headers, told = run(tmp_path, request, timeout=0.05)
    assert (status, told["error"]["code"]) == (503, "timeout")

    def fill(state):
        state.crew.waiting = 10

    status, headers, told = run(tmp_path / "other", request, queue=10, before=fill)
    assert (status, told["error"]["code"]) == (503, "queue")
    assert int(headers.get("retry-after", headers.get("Retry-After"))) >= 1


def test_no_verdict_is_given_that_is_not_logged(tmp_path, inline, monkeypatch):
    def fill_disk(state):
        def refuse(handle, data):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "write", refuse)

    ready = ("GET", "/ready")
    (status, _, told), (second, _, state) = run_with_broken_disk(tmp_path, fill_disk, monkeypatch, ready)
    assert (status, told["error"]["code"]) == (503, "log")
    assert (second, state["status"]) == (503, "log")


def run_with_broken_disk(folder, fill_disk, monkeypatch, ready):
    write = os.write

    async def work():
        with AuditLog(folder, 1 << 20) as log:
            state = await start_state(log, TOKENS)
            fill_disk(state)
            found = [await ask(state, "POST", "/v1/title", {"title": "evil"}), await ask(state, *ready)]
            monkeypatch.setattr(os, "write", write)
            await state.close()
            return found

    return asyncio.run(work())


def test_health_needs_no_token_and_readiness_tells_the_truth(tmp_path, inline):
    bare = {"headers": {"authorization": None}}
    health = {"method": "GET", "path": "/health"} | bare
    ready = {"method": "GET", "path": "/ready"} | bare
    assert [each[0] for each in run(tmp_path, health, ready)] == [200, 200]

    def stop(state):
        state.stopping = True

    status, _, told = run(tmp_path / "stop", ready, before=stop)
    assert (status, told["status"]) == (503, "stopping")

    def forget(state):
        state.crew, state.kept = None, state.crew

    (first, _, told), (second, _, _) = run(
        tmp_path / "start", ready, ("POST", "/v1/title", {"title": "a"}), before=forget
    )
    assert (first, told["status"], second) == (503, "starting", 503)


def test_a_reload_replaces_the_scanner_and_a_refused_one_does_not(tmp_path, inline, monkeypatch):
    async def refuse(source):
        raise UserError("There is \u202e no scanner.", "Make one.")

    def break_next(state):
        monkeypatch.setattr(service_state, "open_in_process", refuse)

    ((good, _, told),) = [run(tmp_path, ("POST", "/v1/reload"))]
    assert good == 200 and told["scanner"] == "words 1"
    title = ("POST", "/v1/title", {"title": "evil"})
    (status, _, told), (after, _, verdict) = run(tmp_path, ("POST", "/v1/reload"), title, before=break_next)
    assert (status, told["error"]["code"], told["error"]["hint"]) == (409, "scanner", "Make one.")
    assert (after, verdict["tier"]) == (200, "flagged")
    assert [each.get("event") for each in read_log(tmp_path)][-3:] == ["refused", None, "stopped"]


def test_only_an_admin_may_reload_where_there_is_one(tmp_path, inline):
    tokens = AccessTokens({"shop": TOKEN, "admin": TOKEN + "2"})
    status, _, told = run(tmp_path, ("POST", "/v1/reload"), tokens=tokens)
    assert (status, told["error"]["code"]) == (403, "client")
    admin = {"method": "POST", "path": "/v1/reload", "headers": {"authorization": f"Bearer {TOKEN}2"}}
    assert run(tmp_path / "admin", admin, tokens=tokens)[0] == 200


def test_metrics_count_what_happened(tmp_path, inline):
    bad = {"method": "POST", "path": "/v1/title", "body": b"{"}
    *_, (status, _, text) = run(
        tmp_path, ("POST", "/v1/titles", {"titles": ["evil", "mug"]}), bad, ("GET", "/secret"), ("GET", "/metrics")
    )
    told = text.decode()
    for line in (
        'cowbird_titles_total{tier="flagged"} 1.0',
        'cowbird_titles_total{tier="none"} 1.0',
        'cowbird_requests_total{route="/v1/title",status="422"} 1.0',
        'cowbird_requests_total{route="other",status="404"} 1.0',
        "cowbird_waiting_titles 0.0",
    ):
        assert line in told, told
    assert status == 200 and "evil" not in told and "secret" not in told


def test_the_form_is_told_without_references_that_lead_nowhere(tmp_path, inline):
    status, _, told = run(tmp_path, ("GET", "/openapi.json"))
    assert status == 200 and set(told["paths"]) >= {"/v1/title", "/v1/titles", "/v1/reload", "/metrics"}
    assert "$ref" not in json.dumps(told["paths"]["/v1/titles"]["post"]["requestBody"])


def test_hostile_bodies_are_answered_in_order(tmp_path, inline):
    """The same generator sends 10,000 to a real service in benchmarks/serve_load.py."""
    draw = random.Random(7)
    pieces = [
        b"{", b"}", b"[", b"]", b'"title"', b":", b",", b'"titles"', b"null", b"true", b"1e999", b"-0", b"\xff\xfe",
        b'"\\ud800"', b'"\\u0000"', b"\x00", b'"\xf0\x9f\x98\x80"', b"9" * 400, b'"evil"', b"NaN", b"[" * 300,
        b'"id"', b'{"title":"mug"}', b'{"titles":["mug","evil"]}', b"\xef\xbb\xbf", b" ",
    ]  # fmt: skip
    requests = [
        ("POST", draw.choice(["/v1/title", "/v1/titles"]), b"".join(draw.choices(pieces, k=draw.randint(1, 9))))
        for _ in range(400)
    ]
    statuses = [status for status, _, _ in run(tmp_path, *requests)]
    assert set(statuses) == {200, 422}
