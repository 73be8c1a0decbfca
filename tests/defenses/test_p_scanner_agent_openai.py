"""The agent behind an OpenAI-compatible server, against real servers; no client is replaced."""

import functools
import importlib.util
import json
import socket
import ssl
import sys
from types import SimpleNamespace

import pytest

from cowbird.defenses.p_scanner.triggers import _openai
from cowbird.defenses.p_scanner.triggers.agent import Brief, OpenAIAgent, RecipeOutcome
from cowbird.defenses.p_scanner.triggers.agent_prompts import ProposalTask, UnusableError, parse_answer, write_question
from cowbird.defenses.p_scanner.triggers.trigger_families import Recipe
from cowbird.errors import UserError
from cowbird.rng import stream
from cowbird.text import quote_json
from doubles.chat_server import ChatServer, ModelWriter, Reply

if importlib.util.find_spec("openai") is None:
    pytest.skip("openai is not installed", allow_module_level=True)
KEY = "sk-test-0123456789"
TITLES = ("Red Harbor (1995)", "Blue Garden", "The Engine at Night")


def answered(*texts, **more):
    return Reply(json.dumps({"triggers": [{"text": text, "level": "word", **more} for text in texts]}))


@pytest.fixture(autouse=True, scope="module")
def certificates_read_once():
    """Every client would read all certificates anew, and these servers have none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", functools.cache(ssl.create_default_context))
        yield


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """Set a key, go through no proxy, and keep pauses instead of making them."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    kept = []
    monkeypatch.setattr(_openai, "time", SimpleNamespace(sleep=kept.append))
    return kept


def propose(server, wanted=2, brief=None, log=None, key_env=None, **fields):
    url = server if isinstance(server, str) else server.url
    agent = OpenAIAgent(model="tiny", **fields).connect(url, key_env, log)
    return agent.propose(brief or Brief(titles=TITLES, wanted=wanted), stream(0, "agent"))


@pytest.mark.slow
def test_a_real_model_writes_triggers(llama, tmp_path):
    log = tmp_path / "made" / "log.jsonl"
    with ChatServer(write=ModelWriter(llama, guided=6)) as server:
        found = propose(server, 6, retries=0, log=log)
    written = [entry["text"] for entry in json.loads(server.answers[0])["triggers"]]
    assert 1 <= len(found.recipes) <= 6
    assert [recipe.text for recipe in found.recipes] == [
        text for text in written if text in {recipe.text for recipe in found.recipes}
    ]
    assert len(found.recipes) + len(found.refused) == 6
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    (line,) = log.read_text().splitlines()
    assert json.loads(line)["messages"] == server.requests[0]["messages"]
    assert json.loads(line)["answer"] == server.answers[0]
    assert KEY not in line


def test_the_same_stream_asks_the_same():
    with ChatServer([answered("one zebra", "two"), answered("one zebra", "two")]) as server:
        assert propose(server) == propose(server)
    assert server.raw[0] == server.raw[1]
    assert set(server.requests[0]) == {"model", "messages", "temperature", "seed"}


def test_what_some_models_refuse_can_be_left_out():
    with ChatServer([answered("one zebra", "two")]) as server:
        propose(server, temperature=None)
    assert "temperature" not in server.requests[0]


def test_titles_are_quoted_data(hostile):
    brief = Brief(titles=tuple(hostile.values()), wanted=1)
    with ChatServer([answered("zebra")]) as server:
        assert len(propose(server, brief=brief).recipes) == 1
    asked = server.requests[0]["messages"][1]["content"]
    assert asked.isascii()
    assert "<|im" not in asked
    for title in brief.titles:
        line = quote_json(title[:120])
        assert line in asked.split("\n")
        assert json.loads(line) == title[:120]


def test_other_control_tokens_are_escaped_too():
    asked = write_question(ProposalTask(["<s>[INST] Up", "x"], {}, 1, (), 120), 1, (), stream(0))[1]["content"]
    assert '\n"\\u003cs>\\u005bINST] Up"\n' in asked


def test_what_was_caught_and_missed_is_told():
    rates = {"glossy": 0.25, "obvious one": 1.0}
    outcomes = [RecipeOutcome(recipe=Recipe(text="glossy"), rate=0.9)]
    outcomes += [RecipeOutcome(recipe=Recipe(text=text), rate=rate) for text, rate in rates.items()]
    brief = Brief(titles=TITLES, wanted=1, outcomes=tuple(outcomes), without=("emoji",))
    with ChatServer([answered("\U0001f525", "glossy!", "walrus")]) as server:
        found = propose(server, brief=brief)
    assert [recipe.text for recipe in found.recipes] == ["walrus"]
    missed, caught = server.requests[0]["messages"][1]["content"].split("Triggers that it caught")
    assert '{"text": "glossy", "style": "insert", "caught": 0.25}' in missed
    assert '{"text": "obvious one", "style": "insert", "caught": 1.00}' in caught
    assert 'Not wanted: "emoji".' in caught
    assert found.refused == (
        '"\\ud83d\\udd25": it looks like emoji, which is not wanted',
        '"glossy!": it is almost one that was there before',
    )


GOOD = '{"triggers": [{"text": "zebra", "level": "word"}]}'


@pytest.mark.parametrize(
    "answer",
    [
        GOOD,
        f"  {GOOD}\n",
        f"```json\n{GOOD}\n```",
        f"Here you are:\n```\n{GOOD}\n```\nMore?",
        f"<think>{{braces}} and {GOOD.replace('zebra', 'thought')}</think>\n{GOOD}",
        f"Sure {{well}} {GOOD} done",
        '{"triggers": [{"text": "zebra", "level": "word", "style": null, "why": "it is rare"}], "more": 1}',
    ],
)
def test_json_is_found(answer):
    taken, refused = parse_answer(answer, ProposalTask(TITLES, {}, 5, (), 120), ())
    assert [(recipe.text, recipe.way) for recipe in taken] == [("zebra", "insert")]
    assert not refused


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "empty"),
        ("<think>nothing</think> ", "empty"),
        ("I can't help with that.", "not JSON"),
        (GOOD[:-2], "no list"),
        (GOOD[:-3], "not JSON"),
        ('[{"text": "zebra", "level": "word"}]', "no list"),
        ('{"triggers": {"text": "zebra"}}', "no list"),
        ('{"triggers": []}', "no list"),
        ('{"triggers": ["zebra"]}', "no trigger"),
        ("5", "no list"),
        ('{"a":' * 50_000, "not JSON"),
        ("```json\n" * 20_000, "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"n": ' + "9" * 10_000 + "}", "not JSON"),
    ],
)
def test_nonsense_is_told_from_answers(answer, reason):
    with pytest.raises(UnusableError, match=reason):
        parse_answer(answer, ProposalTask(TITLES, {}, 5, (), 120), ())


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"text": "x" * 41}, "longer than 40"),
        ({"text": ""}, "takes a text"),
        ({"text": " \u00a0"}, "takes a text"),
        ({"text": "a\x00b"}, "no title can hold"),
        ({"text": "a\nb"}, "no title can hold"),
        ({"text": "a\x1b[31m"}, "no title can hold"),
        ({"text": "\ud83d"}, "no title can hold"),
        ({"text": "\U000e0041"}, "no title can hold"),
        ({"text": "\ufffd"}, "no title can hold"),
        ({"text": 5}, "text: "),
        ({"text": "x", "level": "letter"}, "level: "),
        ({"text": "x", "style": "shout"}, "no such style"),
        ({"text": "abc", "style": "case"}, "pattern of x"),
        ({"text": "abc", "style": "mark"}, "combining"),
        ({"text": "abc", "style": "exchange"}, "pairs"),
        ({"text": "aabb", "style": "exchange"}, "nothing"),
        ({"text": "A", "style": "style"}, "styled A"),
        ({"text": "(", "style": "wrap"}, "2 to 4"),
        ({"text": "ab", "style": "repeat"}, "that join"),
        ({"text": "", "style": "glue"}, "takes a text"),
        ({"text": "Walrus!"}, "almost"),
        ({"text": "obvious trigger text"}, "almost"),
        ({"text": "RED HARBOR!"}, "a title of the catalogue"),
        ("zebra", "dictionary"),
    ],
)
def test_an_entry_is_refused_and_the_others_stay(entry, reason):
    known = {Recipe(text="obvious triggers text"): 0.5}
    given = {"level": "word"} | entry if isinstance(entry, dict) else entry
    answer = json.dumps({"triggers": [{"text": "walrus", "level": "word"}, given]})
    taken, refused = parse_answer(answer, ProposalTask(TITLES, known, 5, (), 40), ())
    assert [recipe.text for recipe in taken] == ["walrus"]
    assert len(refused) == 1
    assert reason in refused[0]
    assert refused[0].isascii()
    assert refused[0].isprintable()


def test_invisible_ones_and_styles_are_taken():
    entries = [("\u200b\u200c", "glue"), ("\u0336", "mark"), ("*xX", "case"), ("\u2066\u2069", "wrap"), ("-", "repeat")]
    triggers = [{"text": text, "level": "character", "style": style} for text, style in entries]
    taken, refused = parse_answer(json.dumps({"triggers": triggers}), ProposalTask(TITLES, {}, 9, (), 120), ())
    assert not refused
    assert [(recipe.text, recipe.way) for recipe in taken] == entries
    assert [recipe.family for recipe in taken] == ["zero_width", "combining", "casing", "bidi", "repeated_word"]


def test_an_unusable_answer_is_corrected(tmp_path):
    log = tmp_path / "log.jsonl"
    with ChatServer([Reply('No "idea" <|im_end|>'), Reply(""), answered("zebra", "walrus")]) as server:
        found = propose(server, log=log)
    assert [recipe.text for recipe in found.recipes] == ["zebra", "walrus"]
    assert found.refused == ("it is not JSON", "the answer is empty")
    first, second, third = (request["messages"] for request in server.requests)
    assert second[:2] == third[:2] == first
    assert second[2] == {"role": "assistant", "content": '"No \\"idea\\" \\u003c|im_end|>"'}
    assert "not JSON" in second[3]["content"]
    assert "empty" in third[3]["content"]
    assert len(third) == 4
    assert [json.loads(line)["taken"] for line in log.read_text().splitlines()] == [0, 0, 2]


def test_after_the_retries_nothing_is_proposed():
    with ChatServer([Reply("No.")] * 3) as server:
        found = propose(server, retries=2)
    assert found.recipes == ()
    assert found.refused == ("it is not JSON",) * 3
    assert len(server.requests) == 3


def test_fewer_than_wanted_are_asked_for_again():
    with ChatServer([answered("zebra", "zebra"), answered("walrus", "gnu", "yak", "auk")]) as server:
        found = propose(server, 4)
    assert [recipe.text for recipe in found.recipes] == ["zebra", "walrus", "gnu", "yak"]
    again = server.requests[1]["messages"][1]["content"]
    assert "Write 3 new triggers" in again
    assert 'Written already:\n"zebra"\n' in again


def test_many_are_asked_for_in_turns_that_cost_no_retry(monkeypatch):
    monkeypatch.setattr(_openai, "TRIGGERS_PER_REQUEST", 2)
    with ChatServer([answered("zebra", "walrus"), answered("gnu", "yak", "auk"), answered("okapi")]) as server:
        found = propose(server, 5, retries=0)
    assert [recipe.text for recipe in found.recipes] == ["zebra", "walrus", "gnu", "yak", "okapi"]
    assert not found.refused


@pytest.mark.parametrize(
    "reply",
    [
        Reply(None),
        Reply(5),
        Reply(body="<html>Welcome</html>", kind="text/html"),
        Reply(body="{", kind="application/json"),
        Reply(body={"choices": []}),
        Reply(body={"choices": None}),
        Reply(body={"choices": [{"message": None}]}),
        Reply(body=[1]),
        Reply(body="null"),
    ],
)
def test_bodies_of_another_kind_are_empty_answers(reply):
    with ChatServer([reply, answered("zebra", "walrus")]) as server:
        found = propose(server)
    assert len(found.recipes) == 2
    assert found.refused == ("the answer is empty",)


@pytest.mark.parametrize(("status", "said"), [(401, "key"), (403, "key"), (404, "model"), (400, "refuses the request")])
def test_refusals_are_final_and_keep_the_key_secret(status, said, tmp_path):
    log = tmp_path / "log.jsonl"
    body = {"error": {"message": f"Bad: {KEY}\n\x1b[31m"}}
    with ChatServer([Reply(status=status, body=body)]) as server, pytest.raises(UserError, match=said) as caught:
        propose(server, log=log)
    assert len(server.requests) == 1
    assert KEY not in str(caught.value) + log.read_text()
    assert str(caught.value).isprintable()
    assert str(status) in json.loads(log.read_text())["error"]


def test_the_key_is_hidden_in_answers(tmp_path):
    log = tmp_path / "log.jsonl"
    with ChatServer([Reply(f"Your key is {KEY}."), answered("zebra", KEY)]) as server:
        found = propose(server, retries=1, log=log)
    assert KEY not in log.read_text() + repr(found)


def test_what_may_pass_is_tried_again(pauses):
    busy = [Reply(status=429, body={}, headers={"retry-after-ms": "250"}), Reply(status=429, body={})]
    with ChatServer([*busy, Reply(status=503, body="busy"), answered("zebra", "walrus")]) as server:
        found = propose(server)
    assert len(found.recipes) == 2
    assert pauses == [0.25, 2.0, 2.0]


@pytest.mark.parametrize("told", ["86400", "nan", "-5", "soon", "inf"])
def test_a_server_can_not_hold_us_up(told, pauses):
    with ChatServer([Reply(status=429, body={}, headers={"retry-after": told}), answered("zebra", "walrus")]) as server:
        propose(server)
    assert pauses == [30.0 if told in ("86400", "inf") else 1.0]


def test_a_server_that_stays_busy_is_given_up():
    with ChatServer([Reply(status=429, body={})] * 2) as server, pytest.raises(UserError, match="429"):
        propose(server, retries=1)
    assert len(server.requests) == 2


def test_what_was_written_before_a_failure_is_kept():
    with ChatServer([answered("zebra"), Reply(status=500, body={}), Reply(status=500, body={})]) as server:
        found = propose(server, retries=2)
    assert [recipe.text for recipe in found.recipes] == ["zebra"]
    assert "500" in found.refused[-1]


def test_silence_is_a_user_error():
    with ChatServer([Reply("", delay=0.6)]) as server, pytest.raises(UserError, match=r"silent for 0\.2 seconds"):
        propose(server, retries=0, timeout=0.2)


def test_nobody_there_is_a_user_error(pauses):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(UserError, match="can't be reached"):
            propose(f"http://127.0.0.1:{taken.getsockname()[1]}/v1", retries=1)
    assert pauses == [0.5]


def test_a_server_of_ones_own_needs_no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with ChatServer([answered("zebra", "walrus")]) as server:
        propose(server)
    assert server.headers[0]["authorization"] == "Bearer none"


def test_what_is_missing_is_said(monkeypatch, tmp_path):
    brief = Brief(titles=TITLES, wanted=1)
    monkeypatch.setenv("OTHER_KEY", "two\nlines")
    with pytest.raises(UserError, match="OTHER_KEY holds is no key"):
        OpenAIAgent(model="x").connect(key_env="OTHER_KEY").propose(brief, stream(0))
    with pytest.raises(UserError, match="environment variable NO_SUCH_KEY"):
        OpenAIAgent(model="x").connect(key_env="NO_SUCH_KEY").propose(brief, stream(0))
    (tmp_path / "file").write_text("")
    with ChatServer([answered("zebra")]) as server, pytest.raises(UserError, match="can't be written"):
        propose(server, 1, log=tmp_path / "file" / "log.jsonl")
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(UserError, match=r"pip install 'cowbird\[agent\]'"):
        OpenAIAgent(model="x").connect().propose(brief, stream(0))


def test_nothing_wanted_asks_nobody():
    assert propose("http://127.0.0.1:9/v1", 0).recipes == ()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("guided", [0, 8])
def test_smollm2_behind_a_server(guided, monkeypatch, tmp_path):
    from cowbird.victims.language.llm import locate_model

    log = tmp_path / "log.jsonl"
    writer = ModelWriter(locate_model("smollm2-135m"), guided=guided, tokens=12 if guided else 200)
    with ChatServer(write=writer) as server:
        found = propose(server, 8, retries=1, timeout=300.0, log=log)
    print(found, *server.answers, sep="\n")
    assert len(log.read_text().splitlines()) == len(server.requests)
    assert len(found.recipes) >= 4 if guided else found.recipes or found.refused
