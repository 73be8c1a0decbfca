"""A service without processes: a scorer that knows words, and a client that speaks to the application itself."""

import asyncio
import json
import time

from cowbird.scanning.allow_list import AllowList
from cowbird.scanning.verdicts import ExplainedSuspicion
from cowbird.service.app import make_app
from cowbird.service.crew import BatchJudge
from cowbird.service.limits import ServiceLimits
from cowbird.service.scanners import ScannerSource, ServedScanner
from cowbird.service.state import ServiceState

TOKEN = "a-token-of-many-letters"


class WordScorer:
    """Flags titles with `evil`, puts those with `odd` up for review; `crash` and `fail` raise, `hang` takes long."""

    key = "words"

    def scan(self, titles):
        import numpy as np

        if any("fail" in title for title in titles):
            raise RuntimeError("it \u202efailed")
        if any("crash" in title for title in titles):
            import os

            os._exit(9)
        if any("hang" in title for title in titles):
            time.sleep(60)
        start = np.array([title.find("evil") for title in titles], dtype=np.int32)
        flagged, review = start >= 0, np.array(["odd" in title for title in titles])
        return ExplainedSuspicion(
            score=np.where(flagged, 5.0, 1.0), start=start, end=np.where(flagged, start + 4, -1), flagged=flagged,
            review=review & ~flagged, reason=tuple("a word" if bad else "" for bad in flagged.tolist()),
            sure=flagged, threshold=2.0, scanner="words",
        )  # fmt: skip


def make_served(allow=()):
    return ServedScanner(WordScorer, AllowList(allow), "words 1", "ab" * 32, 2.0, {"kind": "test"})


class InlineProcess:
    """Stands for a process that judges."""

    made = 0
    errors = ()
    seconds = 0.0

    def __init__(self, scanner):
        self.scanner, self.batches, self.restarts = scanner, [], 0
        type(self).made += 1

    async def judge(self, titles, seconds):
        self.batches.append(list(titles))
        await asyncio.sleep(self.seconds)
        for word, error in self.errors:
            if any(word in title for title in titles):
                raise error()
        return BatchJudge(self.scanner.make(), self.scanner.allow)(titles)

    def restart(self):
        self.restarts += 1

    def close(self):
        pass


class SilentObserver:
    def __init__(self):
        self.batches, self.restarts = [], 0

    def record_batch(self, titles, seconds):
        self.batches.append(titles)

    def record_restart(self):
        self.restarts += 1


async def start_state(log, tokens=None, **limits):
    """Return a service whose scanner knows words."""
    state = ServiceState(ScannerSource(), ServiceLimits(**limits), tokens, log)
    await state.reload()
    return state


async def ask(state, method, path, body=b"", headers=None, parts=None):
    """Send a request to the application; returns status, headers and the body, from JSON where it is that."""
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    given = {"content-type": "application/json", "authorization": f"Bearer {TOKEN}"} | (headers or {})
    raw = [(name.encode(), value.encode("latin-1")) for name, value in given.items() if value is not None]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
        "raw_path": path.encode(), "query_string": b"", "root_path": "", "scheme": "http", "headers": raw,
        "client": ("127.0.0.1", 9), "server": ("127.0.0.1", 80), "state": {},
    }  # fmt: skip
    waiting, sent = list([body] if parts is None else parts), []

    async def receive():
        if not waiting:
            await asyncio.sleep(3600)
        part = waiting.pop(0)
        if part is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": bool(waiting) or parts is not None}

    async def send(message):
        sent.append(message)

    async def stop():
        pass

    if not hasattr(state, "app"):
        state.app = make_app(state, stop)
    await state.app(scope, receive, send)
    text = b"".join(message.get("body", b"") for message in sent[1:])
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, json.loads(text) if found.get("content-type") == "application/json" else text
