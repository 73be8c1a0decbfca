"""The page's server: who may ask, what is shown, and what is refused."""

import asyncio
import json
import sqlite3
import threading

import pytest

from cowbird.errors import UserError
from cowbird.review.grouping import fill_base
from cowbird.review.server import make_review_app
from cowbird.review.store import ReviewStore
from doubles.findings import write_findings

HOST = "127.0.0.1:4711"
STATES = ("all", "open", "accepted", "dismissed")


@pytest.fixture
def app(tmp_path):
    store = ReviewStore(write_findings(tmp_path))
    yield make_review_app(store, "token", 4711)
    store.close()


def ask(app, method, path, body=None, query="", **headers):
    """Send a request; returns status, headers and text."""
    given = {"host": HOST} | (
        {"content-type": "application/json", "origin": f"http://{HOST}"} if method == "POST" else {}
    )
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"" if body is None else body, "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
        "root_path": "", "raw_path": path.encode("utf-8", "replace"), "scheme": "http", "state": {},
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in given.items() if value is not None],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 4711),
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    text = b"".join(message.get("body", b"") for message in sent[1:]).decode()
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}, text


def test_the_page_and_its_parts_come_with_a_strict_policy(app):
    for name, kind in (("", "text/html"), ("page.js", "text/javascript"), ("page.css", "text/css")):
        status, headers, text = ask(app, "GET", f"/token/{name}")
        assert status == 200 and headers["content-type"].startswith(kind)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http:" not in policy
        assert "//" not in text.replace("// ", ""), "nothing comes from elsewhere"
    assert "innerHTML" not in text


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/", {}),
        ("/other/", {}),
        ("/token", {}),
        ("/tok\u00e9n/", {}),
        ("/token/api/summary", {"host": "evil.example:4711"}),
        ("/token/api/summary", {"host": None}),
        ("/token/api/summary", {"sec_fetch_site": "cross-site"}),
    ],
)
def test_strangers_get_nothing(app, path, headers):
    status, answered, text = ask(app, "GET", path, **headers)
    assert status == 403 and "findings" not in text and "content-security-policy" in answered


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"content_type": "text/plain"},
        {"sec_fetch_site": "same-site"},
    ],
)
def test_another_page_can_not_decide(app, headers):
    body = json.dumps({"target": "group", "id": 0, "mark": "", "choice": "accepted"}).encode()
    assert ask(app, "POST", "/token/api/decisions", body, **headers)[0] == 403
    assert json.loads(ask(app, "GET", "/token/api/summary")[2])["accepted"] == 0


def test_an_export_of_nothing_is_told(app, tmp_path):
    made = json.loads(ask(app, "POST", "/token/api/export", b"{}")[2])
    assert made["file"] is None
    assert made["said"].startswith("Nothing is dismissed yet")
    assert not list(tmp_path.glob("*.allow.txt"))


def test_a_decision_is_kept_undone_and_exported(app, tmp_path):
    told = json.loads(ask(app, "GET", "/token/api/groups", query="limit=2")[2])
    assert told["total"] == 4 and len(told["rows"]) == 2
    group = told["rows"][1]
    body = json.dumps({"target": "group", "id": group["id"], "mark": group["mark"], "choice": "dismissed"}).encode()
    assert ask(app, "POST", "/token/api/decisions", body)[0] == 200
    assert json.loads(ask(app, "GET", "/token/api/summary")[2])["dismissed"] == 1
    made = json.loads(ask(app, "POST", "/token/api/export", b"{}")[2])
    assert made == {"file": "findings.jsonl.allow.txt", "texts": 1, "left_out": 0}
    assert (tmp_path / made["file"]).read_text(encoding="utf-8") == "\u200b\n"
    assert json.loads(ask(app, "POST", "/token/api/undo", b"{}")[2])["undone"] == {
        "target": "group",
        "choice": "dismissed",
    }
    assert json.loads(ask(app, "POST", "/token/api/undo", b"{}")[2])["undone"] is None


def test_a_full_disk_is_told_and_nothing_is_kept(tmp_path):
    store = ReviewStore(write_findings(tmp_path))
    app = make_review_app(store, "token", 4711)
    group = json.loads(ask(app, "GET", "/token/api/groups")[2])["rows"][0]
    body = json.dumps({"target": "group", "id": group["id"], "mark": group["mark"], "choice": "dismissed"}).encode()
    store._base.execute(f"pragma max_page_count = {store._base.execute('pragma page_count').fetchone()[0]}")
    answers = {200}
    while answers == {200}:
        status, _, text = ask(app, "POST", "/token/api/decisions", body)
        answers.add(status)
    assert answers == {200, 507} and "is full" in json.loads(text)["error"]
    store.close()


def test_undo_names_a_decision_and_refuses_what_another_changed(app):
    group = json.loads(ask(app, "GET", "/token/api/groups")[2])["rows"][0]

    def decide(choice):
        sent = {"target": "group", "id": group["id"], "mark": group["mark"], "choice": choice}
        return json.loads(ask(app, "POST", "/token/api/decisions", json.dumps(sent).encode())[2])["number"]

    first, second = decide("accepted"), decide("dismissed")
    assert ask(app, "POST", "/token/api/undo", json.dumps({"number": first}).encode())[0] == 409
    told = json.loads(ask(app, "POST", "/token/api/undo", json.dumps({"number": second}).encode())[2])
    assert told == {"undone": {"target": "group", "choice": "dismissed"}, "before": first}
    assert json.loads(ask(app, "GET", "/token/api/summary")[2])["last"] == first


def test_findings_that_can_not_be_read_any_more_are_told(app, tmp_path):
    (tmp_path / "findings.jsonl").write_text("{")
    told = json.loads(ask(app, "GET", "/token/api/summary")[2])
    assert told["groups"] == 4 and "can't be read" in told["trouble"]


def test_a_page_that_is_out_of_date_is_told_to_reload(app, tmp_path):
    group = json.loads(ask(app, "GET", "/token/api/groups")[2])["rows"][0]
    titles = json.loads(ask(app, "GET", f"/token/api/groups/{group['id']}/findings", query=f"mark={group['mark']}")[2])
    ReviewStore(write_findings(tmp_path, [(1, "zz", None, None, "flagged", "q")])).close()
    for target, row in (("group", group), ("title", titles["rows"][0])):
        body = json.dumps({"target": target, "id": row["id"], "mark": row["mark"], "choice": "dismissed"}).encode()
        status, _, text = ask(app, "POST", "/token/api/decisions", body)
        assert status == 409 and "Reload the page" in json.loads(text)["error"]
    assert ask(app, "GET", f"/token/api/groups/{group['id']}/findings", query=f"mark={group['mark']}")[0] == 409
    told = json.loads(ask(app, "GET", "/token/api/summary")[2])
    assert (told["groups"], told["dismissed"], told["titles"]) == (1, 0, 0)


def test_hostile_titles_are_shown_as_what_they_are(app):
    rows = json.loads(ask(app, "GET", "/token/api/groups")[2])["rows"]
    hidden = next(row for row in rows if "U+200B" in row["fragment"])
    assert hidden["example"] == {"before": "a", "span": "<U+200B>", "after": "b <b>"}


@pytest.mark.parametrize(
    ("method", "path", "body", "query", "status"),
    [
        ("GET", "/token/api/groups", None, "limit=0", 422),
        ("GET", "/token/api/groups", None, "offset=-1", 422),
        ("GET", "/token/api/groups", None, "state=none", 422),
        ("GET", "/token/api/groups", None, "search=" + "x" * 999, 422),
        ("GET", "/token/api/groups", None, "search=%ED%A0%80%00%27", 200),
        ("GET", "/token/api/groups/99999999999999999999/findings", None, "", 404),
        ("GET", "/token/api/groups/x/findings", None, "", 422),
        ("GET", "/token/api/none", None, "", 404),
        ("POST", "/token/api/decisions", b"{", "", 422),
        ("POST", "/token/api/decisions", b'{"target":"group","id":0,"mark":"","choice":"\\ud800"}', "", 422),
        ("POST", "/token/api/decisions", b'{"target":"group","id":0,"choice":"accepted"}', "", 422),
        (
            "POST",
            "/token/api/decisions",
            b'{"target":"group","id":99999999999999999999,"mark":"","choice":"accepted"}',
            "",
            404,
        ),
        ("POST", "/token/api/decisions", b'{"target":"title","id":12345,"mark":"","choice":"accepted"}', "", 409),
        ("POST", "/token/api/decisions", b"x" * 100_000, "", 413),
        ("POST", "/token/api/undo", b'{"number": -1}', "", 422),
        ("POST", "/token/api/undo", b'{"number": 999999999999999999999}', "", 422),
        ("POST", "/token/api/undo", b"[]", "", 422),
        ("PUT", "/token/api/undo", b"{}", "", 403),
    ],
)
def test_odd_requests_are_refused(app, method, path, body, query, status):
    assert ask(app, method, path, body, query)[0] == status


def test_what_goes_wrong_while_findings_are_kept_is_told_to_whoever_asks(tmp_path, monkeypatch):
    def fail(*given):
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr("cowbird.review.grouped_store.fill_base", fail)
    store = ReviewStore(write_findings(tmp_path), index_later=True)
    with pytest.raises(UserError, match="locked"):
        store.wait()
    app = make_review_app(store, "token", 4711)
    assert ask(app, "GET", "/token/")[0] == 200
    for path in ("summary", "groups", "groups/0/findings"):
        status, _, text = ask(app, "GET", f"/token/api/{path}")
        assert status == 507
        assert "another review" in json.loads(text)["error"]
    store.close()


def test_groups_are_listed_before_they_are_kept(tmp_path, monkeypatch):
    go, keep = threading.Event(), fill_base

    def keep_slowly(*given):
        assert go.wait(30)
        keep(*given)

    path = write_findings(tmp_path)
    first = ReviewStore(path)
    rows = first.list_groups(0, 100).rows
    first.decide("group", rows[1]["id"], "accepted", rows[1]["mark"])
    first.close()
    path.write_text(path.read_text() + "\n")  # another file, with the same findings
    monkeypatch.setattr("cowbird.review.grouped_store.fill_base", keep_slowly)
    store = ReviewStore(path, index_later=True)
    app = make_review_app(store, "token", 4711)
    asked = [("summary", ""), *(("groups", f"limit=3&offset={n}&state={state}") for n in (0, 1) for state in STATES)]
    early = [json.loads(ask(app, "GET", f"/token/api/{where}", query=query)[2]) for where, query in asked]
    assert not go.is_set()
    threading.Timer(0.05, go.set).start()
    groups = json.loads(ask(app, "GET", "/token/api/groups")[2])["rows"]
    found = json.loads(ask(app, "GET", f"/token/api/groups/{groups[0]['id']}/findings")[2])
    assert found["total"] == groups[0]["many"], "whoever asks for findings waits"
    assert early == [json.loads(ask(app, "GET", f"/token/api/{where}", query=query)[2]) for where, query in asked]
    assert early[0]["accepted"] == 1
    store.close()
