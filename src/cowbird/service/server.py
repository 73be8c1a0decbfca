"""A service from start to end: a socket, a server on it, signals, and an end that loses nothing.

SIGTERM and SIGINT end a service in order: no new connections, every request that came is answered, then the log is
closed. A second one ends it at once. SIGHUP opens the scanner anew.
"""

import asyncio
import gc
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from uvicorn import Config, Server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from cowbird.errors import UserError
from cowbird.processes import list_stop_signals
from cowbird.scanning.summary import REFERENCE_UNREAD_LEAD
from cowbird.scanning.unread import count_unread
from cowbird.service.access import AccessTokens
from cowbird.service.app import make_app
from cowbird.service.audit import AuditLog
from cowbird.service.limits import ServiceLimits
from cowbird.service.scanners import ScannerSource, ServedScanner
from cowbird.service.state import ServiceState
from cowbird.text import count_things, escape_terminal

MAX_HEAD_BYTES = 1 << 15
"""Largest head of a request, in bytes."""


class ServiceEvents(NamedTuple):
    """What is told while a service starts and runs, for people."""

    listening: Callable[[str], None]
    """Its address, once it listens."""
    opened: Callable[[ServedScanner], None]
    """The scanner, once it judges."""
    warn: Callable[[str], None]
    """What went wrong, in a sentence."""


def open_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        UserError: If it can't.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)  # asyncio sends at once only where the protocol says TCP
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(place)
            found.listen(1024)
            found.setblocking(False)
        except BaseException:
            found.close()
            raise
    except (OSError, UnicodeError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"Nothing can listen at {host}, port {port}: {reason}.", "Choose another: --port.") from None
    return found


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches an address."""
    try:
        places = {str(each[4][0]) for each in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False
    return bool(places) and all(place == "::1" or place.startswith("127.") for place in places)


def serve(
    source: ScannerSource,
    limits: ServiceLimits,
    tokens: AccessTokens | None,
    log: AuditLog,
    listener: socket.socket,
    events: ServiceEvents,
) -> None:
    """Serve until a signal ends it.

    Args:
        source: How the scanner is named.
        limits: What is taken on.
        tokens: Who may ask; `None` lets everybody.
        log: The log, open.
        listener: The socket.
        events: Told what happens.

    Raises:
        UserError: If the scanner can't be opened.
    """
    asyncio.run(_Service(source, limits, tokens, log, listener, events).run())


class _Service:
    """One service and the tasks around it."""

    def __init__(
        self,
        source: ScannerSource,
        limits: ServiceLimits,
        tokens: AccessTokens | None,
        log: AuditLog,
        listener: socket.socket,
        events: ServiceEvents,
    ) -> None:
        self._events, self._listener = events, listener
        self._state = ServiceState(source, limits, tokens, log)
        self._tasks: set[asyncio.Task[None]] = set()
        config = Config(
            make_app(self._state, self._state.close), http=make_protocol(limits), ws="none", lifespan="on",
            loop="asyncio", log_config=None, access_log=False, server_header=False, proxy_headers=False,
            limit_concurrency=limits.connections, timeout_keep_alive=max(1, round(limits.read_timeout)),
            timeout_graceful_shutdown=round(limits.timeout + limits.read_timeout) + 5, backlog=1024,
        )  # fmt: skip
        self._server = _QuietServer(config)

    async def run(self) -> None:
        """Serve until a signal comes; raises why the scanner could not be opened."""
        with self._handle_signals():
            self._begin(self._open_first())
            host, port = self._listener.getsockname()[:2]
            self._events.listening(f"http://{f'[{host}]' if ':' in host else host}:{port}")
            await self._server.serve(sockets=[self._listener])
            for task in list(self._tasks):
                task.cancel()
        if self._state.failure is not None:
            raise self._state.failure

    def _begin(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open_first(self) -> None:
        try:
            opened = await self._state.reload()
            gc.collect()
            gc.freeze()  # as in the processes that judge: see crew
            self._tell_opened(opened)
        except UserError:
            self._server.should_exit = True
        except Exception as error:
            self._state.failure = _explain_surprise(error)
            self._server.should_exit = True

    def _tell_opened(self, scanner: ServedScanner) -> None:
        """Tell which scanner judges, and what of its reference could not be read."""
        self._events.opened(scanner)
        if scanner.unread:
            rows = count_things(count_unread(scanner.unread), "row")
            told = "; ".join(map(str, scanner.unread))
            self._events.warn(f"{REFERENCE_UNREAD_LEAD}: {rows}. {told}")

    async def _reload(self) -> None:
        """Open the scanner anew, as SIGHUP asks."""
        try:
            self._tell_opened(await self._state.reload())
        except UserError as error:
            self._events.warn(f"The old scanner goes on. {error}")
        except Exception as error:
            self._events.warn(f"The old scanner goes on. {_explain_surprise(error)}")

    @contextmanager
    def _handle_signals(self) -> Generator[None]:
        """Handle signals in the event loop, and give them back to whom they belonged."""
        loop, taken = asyncio.get_running_loop(), dict[int, Any]()
        hangup = getattr(signal, "SIGHUP", None)
        for number in list_stop_signals():
            with suppress(NotImplementedError, RuntimeError, ValueError):  # another thread, or another system
                taken[number] = signal.getsignal(number)
                if number == hangup:
                    loop.add_signal_handler(number, self._begin_reload)
                else:
                    loop.add_signal_handler(number, self._stop, number)
        try:
            yield
        finally:
            for number, handler in taken.items():
                with suppress(NotImplementedError, RuntimeError, ValueError, TypeError):
                    loop.remove_signal_handler(number)
                    signal.signal(number, handler)

    def _begin_reload(self) -> None:
        self._begin(self._reload())

    def _stop(self, number: int) -> None:
        """End in order; at once if it is asked again."""
        self._state.stopping = True
        self._server.handle_exit(number, None)


def _explain_surprise(error: Exception) -> UserError:
    told = escape_terminal(f"{type(error).__name__}: {error}", 300)
    return UserError(f"The scanner can't be opened: {told}.", "Try it with cowbird scan.")


class _QuietServer(Server):
    """A server that leaves signals to the service."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Take no signals."""
        yield


def make_protocol(limits: ServiceLimits) -> type[HttpToolsProtocol]:
    """Return a protocol that ends connections whose requests are too slow or have too large a head.

    A connection may be quiet for `read_timeout` between requests, and a request may take that and `timeout` in all.
    """

    class LimitedProtocol(HttpToolsProtocol):
        _quiet_since = 0.0
        _head = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._quiet_since = self.loop.time()
            self._look_again()

        def _look_again(self) -> None:
            self._watch = self.loop.call_later(limits.read_timeout / 2, self._look)

        def _look(self) -> None:
            """End the connection if it has waited too long for a request, or an answer is not taken."""
            busy = bool(self.cycle) and not self.cycle.response_complete
            most = limits.timeout + 3 * limits.read_timeout if busy else limits.read_timeout
            if self.loop.time() - self._quiet_since > most:
                self.transport.abort()
            elif not self.transport.is_closing():
                self._look_again()

        def connection_lost(self, exc: Exception | None) -> None:
            self._watch.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            self._head += len(data)
            super().data_received(data)
            if self._head > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response("The head of the request is too large.")

        def on_headers_complete(self) -> None:
            self._head = -(1 << 62)  # what follows is the body, which has a limit of its own
            self._quiet_since = self.loop.time()
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._head = 0
            super().on_message_complete()

        def on_response_complete(self) -> None:
            self._quiet_since = self.loop.time()
            super().on_response_complete()

    return LimitedProtocol
