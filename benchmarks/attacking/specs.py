"""Attack: a stranger's spec that wants to send keys, import code or write elsewhere."""

import socket
import threading
from pathlib import Path

from .harness import KEY, KEY_VARIABLE, Place
from .pipes import SPEC

WISHES = {
    "agent.base_url": 'agent = {{ name = "openai", base_url = "{url}", api_key_env = "{key}" }}',
    "agent.api_key_env": 'agent = {{ name = "openai", api_key_env = "{key}" }}',
    "agent.log": 'agent = {{ name = "openai", log = "{file}" }}',
    "scanner.agent.base_url": 'scanner = {{ agent = {{ name = "openai", base_url = "{url}" }} }}',
    "scanner.agent.log": 'scanner = {{ agent = {{ name = "openai", log = "{file}", model = "$(id)" }} }}',
}
NAMES = (
    "cowbird.cli.assets", "cowbird.__main__", "os.path", "evil", "evil:Attack", "../evil", "\\u202eevil", "x" * 5000,
)  # fmt: skip


class Listener:
    """A server on this machine that counts who connects, and keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            connection.settimeout(2)
            try:
                self.sent.append(connection.recv(65536))
            except OSError:
                self.sent.append(b"")
            connection.close()


def attack_specs(place: Place) -> None:
    """Validate and run specs of a stranger."""
    listener = Listener()
    shell_file = place.root / "home" / ".bashrc"
    shell_file.write_text("# mine\n")
    (place.work / "evil.py").write_text(f"open({str(place.root / 'home' / 'owned')!r}, 'w').close()\n")
    base = SPEC.format(source="synthetic", options="users = 60\nitems = 40")
    for wish, text in WISHES.items():
        told = text.format(url=listener.url, key=KEY_VARIABLE, file=shell_file)
        _try(place, listener, wish, base + f'[[defenses]]\nname = "p_scanner"\n{told}\n', ("run",))
    for name in NAMES:
        _try(place, listener, f"an attack named {name[:24]}", base.replace("basic_replacement", name), ("validate",))
    for kind, text in (("victim", base.replace("sasrec", "evil")), ("dataset", base.replace("synthetic", "evil"))):
        _try(place, listener, f"a {kind} named evil", text, ("validate",))


def _try(
    place: Place, listener: Listener, name: str, text: str, commands: tuple[str, ...] = ("validate", "run")
) -> None:
    spec = place.work / "stranger.toml"
    spec.write_text(text)
    for command in commands:
        before = len(listener.sent)
        out = place.work / "run-stranger"
        more = ("--out", out) if command == "run" else ()
        attempt = place.attack("specs", f"{command}: {name}", (2,), command, spec, *more, out=[out])
        sent = listener.sent[before:]
        attempt.secrets += sum(KEY.encode() in each for each in sent)
        if sent:
            attempt.faults += (f"{len(sent)} requests sent",)
        _remove(out)


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
