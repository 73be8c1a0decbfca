"""Addresses with real servers behind them: S3, Google's and Azure's (emulators) and HTTPS; see `make test-servers`."""

import contextlib
import functools
import gzip
import http.server
import importlib.util
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from cowbird.errors import OutageError, UserError
from cowbird.ingest import places, remote
from cowbird.scanning.reading import open_catalog

pytestmark = pytest.mark.slow
KEY, SECRET = "AKIAHIDDENWORD", "very-hidden-secret"
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The key of Azurite's only account, which its documentation names; no secret."""
ROWS = b"id,title\n" + b"".join(b"%d,Title %d\n" % (n, n) for n in range(400_000))


def need(*modules):
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")


@pytest.fixture(autouse=True)
def forget_copies(monkeypatch):
    monkeypatch.setattr(remote, "PAUSE_SECONDS", 0.01)
    yield
    places._copy_remote.cache_clear()


def find_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def read(address):
    return [(row.id, row.title) for row in open_catalog(Path(address)).read_rows()]


@pytest.fixture(scope="module")
def s3():
    """A server of S3 in a process of its own; gives its address."""
    need("moto", "flask", "flask_cors", "s3fs")
    port = find_port()
    command = [sys.executable, "-c", "from moto.server import main; import sys; main(sys.argv[1:])"]
    server = subprocess.Popen([*command, "-H", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{address}/moto-api/", timeout=5).close()
            break
        except OSError:
            time.sleep(0.1)
    yield address
    server.terminate()
    server.wait()


@pytest.fixture
def shop(s3, monkeypatch):
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    for name, value in (
        ("AWS_ENDPOINT_URL", s3), ("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    store = s3fs.S3FileSystem()
    if not store.exists("shop"):
        store.mkdir("shop")
        store.pipe("shop/items.csv.gz", gzip.compress(ROWS, 1))
        for country in ("DE", "FR"):
            store.pipe(f"shop/parts/country={country}/a.csv", f"id,title\n{country},Red\n".encode())
    return store


def test_files_and_folders_of_s3(shop):
    found = read("s3://shop/items.csv.gz")
    assert found == [(str(n), f"Title {n}") for n in range(400_000)]
    assert read("s3://shop/parts") == [("DE", "Red"), ("FR", "Red")]
    with pytest.raises(UserError, match="there is nothing") as error:
        read("s3://shop/nothing.csv")
    assert SECRET not in str(error.value)
    with pytest.raises(UserError) as error:
        read("s3://no-such-bucket/items.csv")
    assert SECRET not in str(error.value)
    assert KEY not in str(error.value)


def test_a_broken_connection_goes_on_where_it_stopped(shop, monkeypatch):
    import s3fs

    asked, real = [], s3fs.S3File._fetch_range

    def fetch(self, start, end):
        asked.append(start)
        if len(asked) in (2, 3):
            raise ConnectionResetError("reset by peer")
        return real(self, start, end)

    shop.pipe("shop/large.csv", ROWS)
    monkeypatch.setattr(s3fs.S3File, "_fetch_range", fetch)
    assert len(read("s3://shop/large.csv")) == 400_000
    assert len(asked) > 3
    assert sum(start == 0 for start in asked) <= 2


def test_a_server_of_s3_that_is_not_there(monkeypatch):
    need("s3fs")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(OutageError) as error:
        read("s3://shop/items.csv")
    assert SECRET not in str(error.value)


PARTS = {f"parts/country={country}/a.csv": f"id,title\n{country},Red\n".encode() for country in ("DE", "FR")}


def wait_for(address):
    for _ in range(600):
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)


@pytest.fixture
def google(monkeypatch):
    """A server of Google's storage, by an emulator; without the client's second protocol, which that does not speak."""
    need("gcp_storage_emulator", "gcsfs")
    from gcp_storage_emulator.server import create_server

    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    port = find_port()
    address = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket="shop")
    server.start()
    for name, body in {"items.csv": ROWS, **PARTS}.items():
        to = f"{address}/upload/storage/v1/b/shop/o?uploadType=media&name={name}"
        given = urllib.request.Request(to, data=body, method="POST", headers={"Content-Type": "text/csv"})
        urllib.request.urlopen(given).close()
    yield
    server.stop()


@pytest.fixture
def azure(tmp_path, monkeypatch):
    """A server of Azure's blobs: Azurite."""
    need("adlfs")
    program = Path(sys.prefix) / "azurite" / "node_modules" / ".bin" / "azurite-blob"
    if not program.exists():
        pytest.skip("needs Azurite, which tests/servers/setup.sh installs with npm")
    from azure.storage.blob import BlobServiceClient

    port = find_port()
    words = [
        "--silent",
        "--inMemoryPersistence",
        "--skipApiVersionCheck",
        "--disableTelemetry",
        "--blobPort",
        str(port),
    ]
    server = subprocess.Popen([program, *words], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(f"http://127.0.0.1:{port}/devstoreaccount1")
    told = (
        f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={AZURITE_KEY};"
        f"BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;"
    )
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", told)
    container = BlobServiceClient.from_connection_string(told).create_container("shop")
    for name, body in {"items.csv": ROWS, **PARTS}.items():
        container.upload_blob(name, body)
    yield
    server.terminate()
    server.wait()


def check_store(scheme):
    assert read(f"{scheme}://shop/items.csv") == [(str(n), f"Title {n}") for n in range(400_000)]
    assert read(f"{scheme}://shop/parts") == [("DE", "Red"), ("FR", "Red")]
    for address in (f"{scheme}://shop/nothing.csv", f"{scheme}://no-such-store/items.csv"):
        with pytest.raises(UserError) as error:
            read(address)
        assert AZURITE_KEY not in str(error.value)


def test_files_and_folders_of_google(google):
    check_store("gs")


def test_files_and_folders_of_azure(azure):
    check_store("az")


class _Pages(http.server.BaseHTTPRequestHandler):
    """Serves `ROWS`, with ranges or without, and may break off in the middle."""

    ranges = True
    breaks = 0
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self._send(b"", len(ROWS))

    def handle(self):
        with contextlib.suppress(OSError):  # a client that has what it wants goes away
            super().handle()

    def do_GET(self):
        start, end = 0, len(ROWS)
        asked = self.headers.get("Range")
        if asked and self.ranges:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end = int(first), int(last or len(ROWS) - 1) + 1
        body = ROWS[start:end]
        if type(self).breaks and len(body) > 1000:
            type(self).breaks -= 1
            body, size = body[: len(body) // 2], len(body)
            self._send(body, size, start if asked and self.ranges else None)
            self.wfile.flush()
            self.close_connection = True
            return
        self._send(body, len(body), start if asked and self.ranges else None)

    def _send(self, body, size, start=None):
        if "missing" in self.path:
            self.send_error(404)
            return
        self.send_response(200 if start is None else 206)
        self.send_header("Content-Length", str(size))
        if self.ranges:
            self.send_header("Accept-Ranges", "bytes")
        if start is not None:
            self.send_header("Content-Range", f"bytes {start}-{start + size - 1}/{len(ROWS)}")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def https(tmp_path, monkeypatch):
    """A server of HTTPS with a certificate of its own; gives its class of pages and its address."""
    need("aiohttp", "fsspec")
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    made = ["openssl", *words.split(), "-keyout", str(key), "-out", str(cert)]
    subprocess.run(made, check=True, capture_output=True)
    pages = type("Pages", (_Pages,), {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(pages))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield pages, f"https://localhost:{server.server_port}", cert
    server.shutdown()
    server.server_close()


SCRIPT = """
import resource, sys
from pathlib import Path
from cowbird.errors import UserError
from cowbird.ingest import remote
from cowbird.scanning.reading import open_catalog
remote.PAUSE_SECONDS = 0.01
try:
    print(sum(1 for row in open_catalog(Path(sys.argv[1])).read_rows() if row.title == f"Title {int(row.id)}"))
except UserError as error:
    print(type(error).__name__, error.message, error.hint)
"""


def read_in_process(address, cert):
    """Read in a process that trusts a certificate."""
    environment = dict(os.environ) | ({"SSL_CERT_FILE": str(cert)} if cert else {})
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, address], env=environment, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout.strip()


def test_https_with_and_without_ranges_and_with_breaks(https):
    pages, address, cert = https
    secret = "?Signature=hidden-word"
    assert read_in_process(f"{address}/items.csv{secret}", cert) == "400000"
    pages.breaks = 2  # the first try only asks whether there is such a file
    assert read_in_process(f"{address}/items.csv", cert) == "400000"
    pages.ranges, pages.breaks = False, 2
    assert read_in_process(f"{address}/items.csv", cert) == "400000"
    pages.breaks = 1000
    told = read_in_process(f"{address}/items.csv{secret}", cert)
    assert told.startswith("OutageError")
    assert "hidden-word" not in told
    assert "there is nothing" in read_in_process(f"{address}/missing.csv", cert)
    told = read_in_process(f"{address}/items.csv{secret}", None)
    assert "Error" in told
    assert "hidden-word" not in told
