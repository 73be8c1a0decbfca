"""A service under load on loopback: latency, throughput, kills and hostile bodies.

Client and service share the machine.


    python benchmarks/serve_load.py load --name rules --out docs/results/serve_load.json -- --detector character_rules
    python benchmarks/serve_load.py kill --kills 10 --out docs/results/serve_kills.json
    python benchmarks/serve_load.py hostile --bodies 10000 --out docs/results/serve_hostile.json

`load` sends titles that never came before, one a request, at a fixed rate (open loop: a late answer delays no other
request, and its wait counts from when it should have been sent); then as many as are answered, one a request and 50 a
request; then the first again where nine of ten titles came before. `kill` ends the service by SIGKILL under load again
and again, and looks for verdicts that were answered and are not in the log. `hostile` sends bodies, heads and bytes of
a fuzzer with a seed. What follows `--` goes to `cowbird serve`.
"""

import argparse
import asyncio
import atexit
import json
import os
import platform
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

TOKEN = "a-token-of-the-load-test"
_TEXT = """
blue ceramic mug steel water bottle cotton shirt desk lamp wireless mouse garden hose travel bag leather wallet running
shoes kitchen knife wooden chair phone case winter jacket coffee grinder yoga mat toy train puzzle book
"""
WORDS = _TEXT.split()
IDLE_SECONDS = 2.0
"""After so long a client opens a new connection: the service closes idle ones after five seconds."""


class Service:
    """`cowbird serve` as a process."""

    def __init__(self, folder: Path, words: list[str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log, self.errors = folder / "log", folder / "stderr"
        command = [sys.executable, "-m", "cowbird", "serve", "--log", str(self.log), "--port", str(self.port)]
        with self.errors.open("ab") as file:
            self.process = subprocess.Popen(
                [*command, "--token-env", "LOAD_TOKEN", *words],
                env=os.environ | {"LOAD_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.DEVNULL,
                stderr=file,
            )
        atexit.register(self.process.kill)
        self.begun = time.monotonic()

    async def wait(self) -> float:
        """Wait until it judges; returns the seconds that took."""
        while True:
            if self.process.poll() is not None:
                raise SystemExit(self.errors.read_text())
            with suppress(OSError, asyncio.IncompleteReadError):
                if (await Client(self.port).ask("GET", "/ready"))[0] == 200:
                    return time.monotonic() - self.begun
            await asyncio.sleep(0.1)

    def stop(self) -> float:
        """End it in order; returns its processor seconds, without those of processes that it had replaced."""
        seconds = sum(_read_processor_seconds(number) for number in _list_family(self.process.pid))
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        return seconds

    def read_log(self) -> dict[int, str | None]:
        """Return the titles in the log by their numbers; half a line at the end is none."""
        paths = [*sorted(self.log.glob("audit-*.jsonl")), self.log / "audit.jsonl"]
        lines = b"".join(path.read_bytes() for path in paths).split(b"\n")[:-1]
        return {each["number"]: each.get("title") for each in map(json.loads, lines)}


def _list_family(number: int) -> list[int]:
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found = [number]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found


def _read_processor_seconds(number: int) -> float:
    with suppress(OSError):
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


class Client:
    """One connection."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.reader: asyncio.StreamReader | None = None
        self.used = 0.0

    async def ask(self, method: str, path: str, body: bytes = b"", head: bytes | None = None) -> tuple[int, bytes]:
        """Send a request; returns status and body."""
        if self.reader is not None and time.monotonic() - self.used > IDLE_SECONDS:
            self.close()
        if self.reader is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        if head is None:
            head = (
                f"{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            ).encode()
        self.writer.write(head + body)
        answer = await self.reader.readuntil(b"\r\n\r\n")
        while answer.startswith(b"HTTP/1.1 1"):  # go on with the body
            answer = await self.reader.readuntil(b"\r\n\r\n")
        lines = answer.decode("latin-1").lower().split("\r\n")
        length = next((int(line.split(":")[1]) for line in lines if line.startswith("content-length")), 0)
        told = await self.reader.readexactly(length)
        self.used = time.monotonic()
        if "connection: close" in lines:
            self.close()
        return int(lines[0].split()[1]), told

    def close(self) -> None:
        """Close the connection."""
        if self.reader is not None:
            self.writer.close()
            self.reader = None


class Titles:
    """Titles of a file in random order, or of words, with a number that makes them new."""

    def __init__(self, path: Path | None, seed: int) -> None:
        self.draw, self.nth, self.known = random.Random(seed), 0, list[str]()
        if path is not None:
            self.known = list(
                dict.fromkeys(line.strip() for line in path.read_text("utf-8").splitlines() if line.strip())
            )
            self.draw.shuffle(self.known)

    def make(self) -> str:
        """Return a title that did not come before."""
        self.nth += 1
        if self.nth <= len(self.known):
            return self.known[self.nth - 1]
        return f"{' '.join(self.draw.choices(WORDS, k=self.draw.randint(3, 7)))} {self.nth}"


def describe(seconds: list[float]) -> dict[str, float]:
    """Return percentiles in milliseconds."""
    found = np.percentile(np.array(seconds) * 1000, [50, 90, 99, 100]).round(2).tolist()
    return dict(zip(("p50", "p90", "p99", "max"), found, strict=True))


async def send_at_rate(port: int, titles: Titles, rate: float, seconds: float, again: float = 0.0) -> dict[str, object]:
    """Send single titles at a rate; `again` of them came before."""
    free, waits, statuses, sent = list[Client](), list[float](), dict[int, int](), list[str]()
    draw = random.Random(3)

    async def send(due: float) -> None:
        old = bool(sent) and draw.random() < again
        title = draw.choice(sent) if old else titles.make()
        if not old:
            sent.append(title)
        client = free.pop() if free else Client(port)
        status, _ = await client.ask("POST", "/v1/title", json.dumps({"title": title}).encode())
        waits.append(time.monotonic() - due)
        statuses[status] = statuses.get(status, 0) + 1
        free.append(client)

    begun, tasks = time.monotonic(), list[asyncio.Task[None]]()
    for nth in range(int(rate * seconds)):
        due = begun + nth / rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        tasks.append(asyncio.create_task(send(due)))
    await asyncio.gather(*tasks)
    took = time.monotonic() - begun
    return {"requests": len(waits), "seconds": round(took, 2), "ms": describe(waits), "statuses": statuses}


async def send_all_it_takes(
    port: int, titles: Titles, many: int, connections: int, seconds: float
) -> dict[str, object]:
    """Send requests of so many titles on some connections, the next one when the last one was answered."""
    waits, answered, refused = list[float](), 0, 0
    begun = time.monotonic()

    async def work() -> None:
        nonlocal answered, refused
        client = Client(port)
        while time.monotonic() - begun < seconds:
            shown = [titles.make() for _ in range(many)]
            body = {"title": shown[0]} if many == 1 else {"titles": shown}
            path = "/v1/title" if many == 1 else "/v1/titles"
            at = time.monotonic()
            status, _ = await client.ask("POST", path, json.dumps(body).encode())
            waits.append(time.monotonic() - at)
            answered += many * (status == 200)
            refused += status != 200

    await asyncio.gather(*(work() for _ in range(connections)))
    took = time.monotonic() - begun
    return {
        "titles_per_request": many, "connections": connections, "titles": answered, "refused_requests": refused,
        "seconds": round(took, 2), "titles_per_second": round(answered / took, 1), "ms": describe(waits),
    }  # fmt: skip


async def measure_load(arguments: argparse.Namespace) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as name:
        words = arguments.words or ["--detector", "character_rules"]
        service, titles = Service(Path(name), words), Titles(arguments.titles, arguments.seed)
        ready = await service.wait()
        port, seconds, rate = service.port, arguments.seconds, arguments.rate
        await send_all_it_takes(port, titles, 1, 2, min(3.0, seconds))  # warm
        found = {
            "seconds_until_ready": round(ready, 1),
            "single_titles_at_rate": {"rate": rate} | await send_at_rate(port, titles, rate, seconds),
            "single_titles": await send_all_it_takes(port, titles, 1, 16, seconds),
            "lists_of_50": await send_all_it_takes(port, titles, 50, 4, seconds),
            "nine_of_ten_titles_again": {"rate": rate} | await send_at_rate(port, titles, rate, seconds, 0.9),
        }
        found["service_processor_seconds"] = round(service.stop(), 1)
        found["tracebacks"] = service.errors.read_text().count("Traceback")
        return found


async def measure_kills(arguments: argparse.Namespace) -> dict[str, object]:
    """Kill the service under load, and compare what was answered with the log."""
    answered, missing, rounds = 0, 0, list[dict[str, int]]()
    with tempfile.TemporaryDirectory() as name:
        titles = Titles(None, arguments.seed)
        for nth in range(arguments.kills):
            service = Service(Path(name), arguments.words or ["--detector", "character_rules"])
            await service.wait()
            told = list[tuple[int, str]]()

            async def work(many: int, port: int, told: list[tuple[int, str]]) -> None:
                client = Client(port)
                with suppress(OSError, asyncio.IncompleteReadError):
                    while True:
                        shown = [titles.make() for _ in range(many)]
                        status, body = await client.ask("POST", "/v1/titles", json.dumps({"titles": shown}).encode())
                        if status == 200:
                            numbers = [each["number"] for each in json.loads(body)["verdicts"]]
                            told += zip(numbers, shown, strict=True)

            tasks = [asyncio.create_task(work(many, service.port, told)) for many in (1, 1, 1, 1, 1, 1, 20, 50)]
            await asyncio.sleep(random.Random(nth).uniform(0.5, 2.5))
            service.process.kill()
            service.process.wait()
            await asyncio.gather(*tasks)
            log = service.read_log()
            lost = sum(log.get(number) != title for number, title in told)
            answered, missing = answered + len(told), missing + lost
            rounds.append({"answered": len(told), "missing": lost, "records": len(log)})
            gaps = sorted(log) != list(range(1, len(log) + 1))
            rounds[-1]["gaps"] = int(gaps)
            print(rounds[-1], flush=True)
    return {"kills": arguments.kills, "answered_verdicts": answered, "missing_in_the_log": missing, "rounds": rounds}


PIECES = (
    b"{", b"}", b"[", b"]", b'"title"', b":", b",", b'"titles"', b"null", b"true", b"1e999", b"-0", b"\xff\xfe",
    b"\x00",
    b'"\\ud800"', b'"\\u0000"', b'"\xf0\x9f\x98\x80"', b"9" * 5000, b'"mug"', b"NaN", b"Infinity", b"[" * 5000, b'"id"',
    b'{"title":"mug"}', b'{"titles":["mug",{"title":"x","id":1}]}', b"\xef\xbb\xbf", b" ", b"\r\n", b'"\\', b"/*", b"'",
    '"\u202e\u200b\u0645"'.encode(), b'"' + b"x" * 3000 + b'"', b'"<script>"', b'"\x1b[31m"',
    b'"__proto__"', b"1" * 400,
)  # fmt: skip
VALID = (
    {"title": "mug"}, {"title": "m\u200bug \U0001f600", "id": 2**63}, {"titles": ["a", "b", {"title": "c", "id": "x"}]},
    {"title": ""}, {"title": "\x00\x1b]8;;\x07"}, {"titles": ["x" * 1999] * 20}, {"title": "x" * 2001}, {"titles": []},
    {"title": "\u0301" * 2000}, {"title": "\ud7ff\ue000\uffff\U0010ffff"}, {"title": "=cmd|' /C calc'!A0", "id": None},
)  # fmt: skip
METHODS = ("PUT", "GET", "OPTIONS", "PATCH", "TRACE")
PATHS = ("/v1/title/", "//", "/v1/%00", "/v1/scanner", "/%ff?a=%zz")


def make_hostile(draw: random.Random) -> tuple[bytes, bytes]:
    """Return the head and body of a request that a stranger may send."""
    kind = draw.randrange(5)
    if kind == 0:
        body = b"".join(draw.choices(PIECES, k=draw.randint(0, 12)))
    elif kind == 1:
        body = json.dumps(draw.choice(VALID), ensure_ascii=draw.random() < 0.5).encode("utf-8", "surrogatepass")
    elif kind == 2:  # a valid one, damaged
        held = bytearray(json.dumps(draw.choice(VALID)).encode("utf-8", "surrogatepass"))
        for _ in range(draw.randint(1, 8)):
            held[draw.randrange(len(held))] = draw.randrange(256)
        body = bytes(held)
    elif kind == 3:
        body = draw.randbytes(draw.randint(0, 2000))
    else:
        body = draw.choice(
            (b'{"title":' * 20_000, b'{"titles":[' + b'"a",' * 1500 + b'"a"]}', b'"' * 70_000, b"{" * 90_000)
        )
    method = draw.choice(METHODS) if draw.random() < 0.03 else "POST"
    path = draw.choice(PATHS) if draw.random() < 0.03 else draw.choice(("/v1/title", "/v1/titles"))
    lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: a"]
    lines.append(
        b"Authorization: Bearer " + (TOKEN.encode() if draw.random() < 0.97 else draw.randbytes(9).hex().encode())
    )
    lines.append(
        b"Content-Type: "
        + draw.choice((b"application/json",) * 60 + (b"text/plain", b"\xff", b"application/json; charset=\x80"))
    )
    lines.append(
        b"Content-Length: "
        + (str(len(body)).encode() if draw.random() < 0.97 else draw.choice((b"-1", b"x", b"0", b"9" * 30)))
    )
    if draw.random() < 0.05:
        lines.append(
            draw.choice(
                (b"Content-Encoding: gzip", b"X: " + b"a" * 9000, b"Expect: 100-continue", b"Upgrade: websocket")
            )
        )
    return b"\r\n".join([*lines, b"", b""]), body


async def measure_hostile(arguments: argparse.Namespace) -> dict[str, object]:
    """Send hostile requests, each on a connection that may be used; count what is answered."""
    statuses, draw = dict[str, int](), random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        service = Service(Path(name), [*(arguments.words or ["--detector", "character_rules"]), "--read-timeout", "1"])
        await service.wait()
        begun, left = time.monotonic(), iter(range(arguments.bodies))

        async def work() -> None:
            client = Client(service.port)
            for _ in left:
                head, body = make_hostile(draw)
                try:
                    status = str((await asyncio.wait_for(client.ask("", "", body, head), 30))[0])
                except (OSError, asyncio.IncompleteReadError, ValueError):
                    status = "connection closed"
                except TimeoutError:
                    status = "no answer in 30 s"
                if status != "200":
                    client.close()
                statuses[status] = statuses.get(status, 0) + 1

        await asyncio.gather(*(work() for _ in range(16)))
        took = time.monotonic() - begun
        alive = (await Client(service.port).ask("POST", "/v1/title", b'{"title":"m\\u200bug"}'))[1]
        service.stop()
        return {
            "bodies": arguments.bodies, "seed": arguments.seed, "seconds": round(took, 1),
            "statuses": dict(sorted(statuses.items())), "server_errors": statuses.get("500", 0),
            "tracebacks": service.errors.read_text().count("Traceback"),
            "verdict_afterwards": json.loads(alive)["tier"], "exit_code": service.process.returncode,
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["load", "kill", "hostile"])
    parser.add_argument("--name", default="character_rules", help="under which the result of `load` is kept")
    parser.add_argument("--titles", type=Path, help="a title a line; words otherwise")
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--bodies", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    cut = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    arguments = parser.parse_args(sys.argv[1:cut])
    arguments.words = sys.argv[cut + 1 :]
    before = os.getloadavg()[0]
    work = {"load": measure_load, "kill": measure_kills, "hostile": measure_hostile}[arguments.what]
    found = asyncio.run(work(arguments))
    words = [Path(word).name if "/" in word else word for word in arguments.words or ["--detector", "character_rules"]]
    about = {
        "command": f"cowbird serve {' '.join(words)}", "python": platform.python_version(),
        "processors": len(os.sched_getaffinity(0)), "load_before": round(before, 2),
        "load_after": round(os.getloadavg()[0], 2),
    }  # fmt: skip
    print(json.dumps(found | about, indent=1))
    if arguments.out:
        kept = json.loads(arguments.out.read_text()) if arguments.what == "load" and arguments.out.exists() else {}
        told = kept | {arguments.name: found | about} if arguments.what == "load" else found | about
        arguments.out.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
