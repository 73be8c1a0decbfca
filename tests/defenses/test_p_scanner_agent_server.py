"""Where an agent is asked: never where a spec says, never in clear text over a network, never behind a redirect."""

import importlib.util
import json
import os
import socket

import pytest

from cowbird.defenses.p_scanner.rounds.poison_scanner import PoisonScanner
from cowbird.defenses.p_scanner.triggers.agent import Brief, OpenAIAgent
from cowbird.defenses.p_scanner.triggers.agent_server import (
    AGENT_LOG_FILE,
    AgentServer,
    find_log,
    is_loopback,
    keep_logs_in,
    make_agent_server,
    set_agent_environment,
)
from cowbird.errors import UserError
from cowbird.experiments.spec import parse_spec
from cowbird.rng import stream
from doubles.chat_server import ChatServer, Reply

KEY = "sk-test-0123456789"
BRIEF = Brief(titles=("Red Harbor", "Blue Garden"), wanted=1)
ANSWER = Reply(json.dumps({"triggers": [{"text": "zebra", "level": "word"}]}))
asks = pytest.mark.skipif(importlib.util.find_spec("openai") is None, reason="openai is not installed")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in [*os.environ]:
        if name.startswith("COWBIRD_AGENT_") or name == "OPENAI_BASE_URL" or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.mark.parametrize(
    "named",
    [
        {"base_url": "http://evil.example/v1"},
        {"base_url": "https://api.openai.com/v1"},
        {"api_key_env": "AWS_SECRET_ACCESS_KEY"},
        {"log": "/root/.bashrc"},
        {"base_url": "http://evil.example", "api_key_env": "HOME", "log": "../../.profile"},
    ],
    ids="+".join,
)
@pytest.mark.parametrize("profile", [False, True])
def test_a_spec_that_names_a_server_is_refused_with_what_replaces_it(named, profile):
    from cowbird.experiments.profiles import apply_profile

    agent = {"model": "$(touch harm)"} | named
    table = {
        "name": "x",
        "dataset": {"name": "synthetic"},
        "victims": [{"name": "sasrec"}],
        "attacks": [{"name": "random_profiles"}],
        "defenses": [{"name": "p_scanner", "scanner": {"agent": {"model": "m"} if profile else agent}}],
    }
    if profile:
        table["profile"] = {"p": {"defenses": {"p_scanner": {"scanner": {"agent": agent}}}}}
        table = apply_profile(table, "p")
    with pytest.raises(UserError) as error:
        parse_spec(table)
    assert f"a spec can't name {' or '.join(named)}" in error.value.message
    for name, option in {"base_url": "--agent-url", "api_key_env": "--agent-key-env", "log": "--agent-log"}.items():
        assert (option in error.value.message) == (name in named)
    assert "EmbeddedAgent" not in error.value.message


def test_a_record_of_a_spec_holds_no_server():
    agent = OpenAIAgent(model="m").connect("https://gpu.example/v1", "OTHER")
    assert "gpu.example" not in PoisonScanner(agent=agent).model_dump_json()
    assert PoisonScanner(agent=agent).agent._server.url == "https://gpu.example/v1"


def test_an_agent_that_no_server_was_named_for_asks_nobody():
    with pytest.raises(UserError, match=r"none is named. Name it: --agent-url \(or COWBIRD_AGENT_URL\)"):
        OpenAIAgent(model="m").propose(BRIEF, stream(0))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1",
        "http://127.0.0.1:8000/v1",
        "http://127.9.9.9/v1",
        "http://localhost:8000/v1",
        "http://LOCALHOST/v1",
        "http://[::1]:8000/v1",
        "https://gpu.example/v1",
        "HTTPS://gpu.example/v1",
    ],
)
def test_addresses_that_a_key_goes_to(url):
    assert make_agent_server(url, None).check_key() == KEY


@pytest.mark.parametrize(
    "url",
    [
        "http://gpu.example/v1",
        "http://localhost.evil.com/v1",
        "http://127.0.0.1.evil.com/v1",
        "http://evil.com/127.0.0.1",
        "http://[::ffff:8.8.8.8]/v1",
        "http://[::2]/v1",
        "http://0.0.0.0/v1",
        "http://10.0.0.7/v1",
        "http://169.254.169.254/v1",
        "http://2130706433/v1",
        "http://0x7f.1/v1",
        "http://localhost./v1",
        "http://xlocalhost/v1",
    ],
)
def test_addresses_that_no_key_goes_to(url):
    server = make_agent_server(url, None)
    with pytest.raises(UserError, match="in clear text") as error:
        server.check_key()
    assert KEY not in str(error.value)
    assert make_agent_server(url, "none").check_key() == ""


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000/v1",
        "ftp://x/v1",
        "file:///etc/passwd",
        "http://",
        "http://me:secret@x/v1",
        "http://127.0.0.1@evil.com/v1",
        "http://127.0.0.1:80@evil.com/v1",
        "http://127.0.0.1\\@evil.com/v1",
        "http://127.0.0.1#@evil.com/v1",
        "http://127.0.0.1?@evil.com/v1",
        "http://127.0.0.1/v1?to=evil.com",
        "http://127.0.0.1%2eevil.com/v1",
        "http://127.0.0.1 .evil.com/v1",
        "http://127.0.0.1\n.evil.com",
        "http://127.0.0.1\u3002evil.com",
        "http://l\u043ecalhost/v1",
        "http://[::1%25eth0]/v1",
        "http://127.0.0.1:999999/v1",
    ],
)
def test_addresses_that_are_none(url):
    assert not is_loopback(url)
    with pytest.raises(UserError, match="is no address"):
        make_agent_server(url, None)


def test_the_environment_names_a_server_and_a_key(monkeypatch):
    monkeypatch.setenv("OTHER", "k")
    with set_agent_environment("http://localhost:1/v1", "OTHER", log=True):
        server = make_agent_server(None, None)
        assert (server.url, server.key) == ("http://localhost:1/v1", "k")
    assert make_agent_server(None, None).url == "https://api.openai.com/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "https://gateway.example/v1")
    assert make_agent_server(None, None).url == "https://gateway.example/v1"


def test_a_log_lies_in_the_folder_of_the_run_alone(tmp_path, monkeypatch):
    with keep_logs_in(tmp_path):
        assert find_log() is None
        with set_agent_environment(None, None, log=True):
            assert find_log() == tmp_path / AGENT_LOG_FILE
        monkeypatch.setenv("COWBIRD_AGENT_LOG", "/root/.bashrc")  # says whether, and not where
        assert find_log() == tmp_path / AGENT_LOG_FILE
    assert find_log() is None


@asks
def test_a_redirect_is_not_followed():
    with ChatServer([ANSWER]) as other:
        moved = Reply(status=307, body="{}", headers={"Location": f"{other.url}/chat/completions"})
        with ChatServer([moved]) as server, pytest.raises(UserError, match="a key follows nobody") as error:
            OpenAIAgent(model="m", retries=0).connect(server.url).propose(BRIEF, stream(0))
        assert other.url in error.value.message
        assert not other.requests
    assert len(server.requests) == 1


@asks
def test_no_proxy_gets_the_key_of_a_server_on_this_machine(monkeypatch):
    with ChatServer([ANSWER]) as proxy, ChatServer([ANSWER]) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        assert OpenAIAgent(model="m").connect(server.url).propose(BRIEF, stream(0)).recipes
    assert not proxy.requests
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


@asks
def test_no_key_is_sent_to_a_server_in_clear_text(monkeypatch):
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: asked.append(args))
    with pytest.raises(UserError, match="in clear text"):
        OpenAIAgent(model="m").connect("http://localhost.evil.com/v1").propose(BRIEF, stream(0))
    assert not asked


@asks
@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "pipe", "folder"])
def test_a_log_that_is_no_file_of_ours(kind, tmp_path):
    log, other = tmp_path / AGENT_LOG_FILE, tmp_path / "bashrc"
    if kind != "dangling link":
        other.write_text("mine")
    make = {
        "link": lambda: log.symlink_to(other),
        "dangling link": lambda: log.symlink_to(other),
        "hard link": lambda: log.hardlink_to(other),
        "pipe": lambda: os.mkfifo(log),
        "folder": log.mkdir,
    }
    make[kind]()
    agent = OpenAIAgent(model="$(touch harm)", retries=0)
    with ChatServer([ANSWER]) as server, pytest.raises(UserError, match=r"is a link|can't be written"):
        agent.connect(server.url, log=log).propose(BRIEF, stream(0))
    assert not other.exists() if kind == "dangling link" else other.read_text() == "mine"


def test_a_server_is_no_part_of_the_agents_fields():
    assert not {"base_url", "api_key_env", "log", "url", "key_env"} & OpenAIAgent.model_fields.keys()
    assert AgentServer(key_env="none").key == ""
