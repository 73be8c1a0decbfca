"""A service as a process: requests over sockets, signals, and a kill under load."""

import http.client
import json
import os
import signal
import socket
import threading
import time
from contextlib import suppress

import pytest

from doubles.processes import list_workers, start_command, wait_until
from doubles.service import TOKEN

pytestmark = pytest.mark.slow
JSON = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}


class RunningService:
    """A service at a free port."""

    def __init__(self, folder, *words):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = folder / "log"
        (folder / "tokens").write_text(f"shop {TOKEN}\n")
        given = ["--log", self.log, "--token-file", folder / "tokens", "--port", self.port, "--read-timeout", "1"]
        self.process = start_command("serve", *given, *words)

    def wait(self):
        def is_ready():
            try:
                return self.ask("GET", "/ready")[0] == 200
            except OSError:
                return False

        wait_until(is_ready, self.process)
        return self

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, None if body is None else json.dumps(body), JSON)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    def read_log(self):
        paths = [*sorted(self.log.glob("audit-*.jsonl")), self.log / "audit.jsonl"]
        lines = b"".join(path.read_bytes() for path in paths).split(b"\n")
        return [json.loads(line) for line in lines[:-1]]


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    found = RunningService(tmp_path_factory.mktemp("service"), "--detector", "character_rules").wait()
    yield found
    if found.process.poll() is None:
        found.process.kill()
    found.process.wait()


def send_until_it_ends(service, answered, name):
    """Send titles until the service is gone; keep which were answered."""
    nth = 0
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    try:
        while True:
            title = f"mug {name} {nth}"
            connection.request("POST", "/v1/title", json.dumps({"title": title}), JSON)
            answer = connection.getresponse()
            told = json.loads(answer.read())
            if answer.status == 200:
                answered.append((told["number"], title))
            nth += 1
    except (OSError, http.client.HTTPException, ValueError):
        pass


def test_slow_and_large_heads_lose_their_connection(service):
    with socket.create_connection(("127.0.0.1", service.port)) as slow:
        begun = time.monotonic()
        slow.settimeout(20)
        slow.sendall(b"POST /v1/title HTTP/1.1\r\nHost: a\r\n")
        with suppress(ConnectionResetError):
            assert slow.recv(100) == b""
        assert time.monotonic() - begun < 10
    with socket.create_connection(("127.0.0.1", service.port)) as large:
        large.settimeout(20)
        large.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 40_000)
        assert large.recv(12) == b"HTTP/1.1 400"
    assert service.ask("GET", "/health")[0] == 200


@pytest.mark.long
def test_a_worker_that_is_killed_is_replaced(service):
    (worker,) = list_workers(service.process)
    os.kill(worker, signal.SIGKILL)
    status, told = service.ask("POST", "/v1/titles", {"titles": ["a new mug", "a\u200bb"]})
    assert status == 200 and [each["tier"] for each in told["verdicts"]] == ["none", "flagged"]


@pytest.mark.long
def test_sighup_opens_the_scanner_anew_while_titles_are_judged(service):
    before = sum(each.get("event") == "scanner" for each in service.read_log())
    service.process.send_signal(signal.SIGHUP)
    judged = []

    def is_reloaded():
        judged.append(service.ask("POST", "/v1/title", {"title": f"cup {len(judged)}"})[0])
        return sum(each.get("event") == "scanner" for each in service.read_log()) > before

    wait_until(is_reloaded, service.process)
    assert set(judged) == {200}


def test_sigterm_answers_what_came_and_a_kill_loses_no_answer(service):
    answered = []
    threads = [threading.Thread(target=send_until_it_ends, args=(service, answered, name)) for name in "abcd"]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(answered) > 300, service.process)
    service.process.kill()
    for thread in threads:
        thread.join()
    service.process.wait()
    logged = {each["number"]: each.get("title") for each in service.read_log()}
    assert len(answered) > 300 and all(logged.get(number) == title for number, title in answered)

    again = RunningService(service.log.parent, "--detector", "character_rules").wait()
    try:
        found = []

        def send_many():
            found.append(again.ask("POST", "/v1/titles", {"titles": [f"pot {nth}" for nth in range(900)]})[0])

        thread = threading.Thread(target=send_many)
        thread.start()
        wait_until(lambda: len(again.read_log()) >= len(logged), again.process)
        again.process.send_signal(signal.SIGTERM)
        thread.join()
        out = again.process.communicate(timeout=60)[0]
    finally:
        again.process.kill()
    assert again.process.returncode == 0 and "Traceback" not in out, out
    records = again.read_log()
    assert found == [200] and records[-1]["event"] == "stopped"
    assert [each["number"] for each in records] == list(range(1, len(records) + 1))
