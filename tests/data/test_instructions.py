"""Files of written questions: the published form, its close relatives, and hostile bytes."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowbird.data import instructions
from cowbird.data.instructions import Instruction, read_instructions
from cowbird.errors import UserError

ASK = 'identify whether the user will like the target movie by answering "Yes." or "No.".'
INPUT = 'User Preference: "Up"\nUser Unpreference: \nWhether the user will like the target movie "Alien (1979)"?'
GOOD = {"instruction": ASK, "input": INPUT, "output": "Yes."}
BAD = GOOD | {"output": "No."}
FORM = "a JSON list of objects, or one object a line"


@pytest.fixture
def read(tmp_path):
    """Return a function that reads text or bytes as a file."""

    def from_bytes(data, name="test.json"):
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"))
        return read_instructions(path)

    return from_bytes


def skipped(skips):
    return {skip.reason: skip.lines for skip in skips}


@pytest.mark.parametrize("indent", [None, 4])
def test_the_published_form(read, indent):
    found, skips = read(json.dumps([GOOD, BAD], indent=indent))
    assert found == (Instruction(ASK, INPUT, "Yes."), Instruction(ASK, INPUT, "No."))
    assert skips == ()


def test_json_lines_and_their_ends(read):
    text = "\r\n".join(["", json.dumps(GOOD), "  ", json.dumps(BAD | {"more": [1, {"a": None}]}), ""])
    found, skips = read(text)
    assert ([row.output for row in found], skips) == (["Yes.", "No."], ())
    # Line breaks of Unicode inside a text are no ends of lines.
    (row,), _ = read(json.dumps(GOOD | {"input": "a\u2028b\x85c"}, ensure_ascii=False))
    assert row.input == "a\u2028b\x85c"


def test_byte_order_mark_gzip_and_space(read):
    text = b" \n\t" + json.dumps([GOOD]).encode() + b"\n\n"
    expected = (Instruction(ASK, INPUT, "Yes."),)
    assert read(b"\xef\xbb\xbf" + text)[0] == expected
    assert read(gzip.compress(text), "train.json.gz")[0] == expected
    assert read(b"\xef\xbb\xbf" + json.dumps(GOOD).encode())[0] == expected


@pytest.mark.parametrize(
    ("written", "answer"),
    [(text, "Yes.") for text in ("Yes.", "Yes", "yes", "YES.", " yes.\n", "\tYeS")]
    + [(text, "No.") for text in ("No.", "no", "NO", "\u00a0No. ")]
    + [(text, None) for text in ("", ".", "Yes..", "Yes!", "y", "true", "Nope", "Yes. No.", "Y\u0435s", "Yes.\ud800")],
)
def test_answers(read, written, answer):
    found, skips = read(json.dumps([GOOD, GOOD | {"output": written}]))
    assert len(found) == 1 + (answer is not None)
    if answer is None:
        assert skips[0].reason == ("output is neither Yes nor No" if written else "output is empty")
    else:
        assert found[1].output == answer


ROWS = {
    "instruction is missing": {"input": INPUT, "output": "No."},
    "input is missing": {"instruction": ASK, "output": "No.", "Input": INPUT},
    "output is missing": {"instruction": ASK, "input": INPUT},
    "instruction is not text": GOOD | {"instruction": None},
    "input is not text": GOOD | {"input": [INPUT]},
    "output is not text": GOOD | {"output": True},
    "input is empty": GOOD | {"input": " \n"},
    "output is neither Yes nor No": GOOD | {"output": "Maybe."},
    "is not an object": ["instruction", "input", "output"],
}


@pytest.mark.parametrize("lines", [False, True])
def test_rows_that_can_t_be_used_are_counted_with_their_lines(read, lines):
    rows = [GOOD, *ROWS.values(), BAD]
    texts = [json.dumps(row) for row in rows]
    found, skips = read("\n".join(texts) if lines else "[\n" + ",\n".join(texts) + "\n]")
    assert [row.output for row in found] == ["Yes.", "No."]
    first = 2 if lines else 3
    assert skipped(skips) == {reason: (first + nth,) for nth, reason in enumerate(ROWS)}
    assert all((skip.file, skip.count) == ("test.json", 1) for skip in skips)


def test_lines_of_indented_rows(read):
    _, skips = read(json.dumps([GOOD, {"a": 1}, GOOD, 5, BAD], indent=4))
    assert skipped(skips) == {"instruction is missing": (7,), "is not an object": (15,)}


ODD = {
    "a key is there twice": '{"output": "Yes.", "instruction": "a", "input": "b", "output": "No."}',
    "input is not text": '{"instruction": "a", "input": NaN, "output": "Yes."}',
    "instruction is not text": '{"instruction": -Infinity, "input": "b", "output": "Yes."}',
    "output is not text": '{"instruction": "a", "input": "b", "output": ' + "9" * 5000 + "}",
}


@pytest.mark.parametrize("lines", [False, True])
def test_odd_json(read, lines):
    texts = [json.dumps(GOOD), *ODD.values()]
    found, skips = read("\n".join(texts) if lines else f"[{','.join(texts)}]")
    assert len(found) == 1
    assert skipped(skips).keys() == ODD.keys()


def test_broken_lines_cost_only_themselves(read):
    deep = '{"instruction":' + "[" * 200_000
    texts = [json.dumps(GOOD), "{", '{"instruction": "a"', "}", "\0", deep, "NaN", "'a'", json.dumps(BAD)]
    found, skips = read("\n".join(texts))
    assert [row.output for row in found] == ["Yes.", "No."]
    assert skipped(skips) == {
        "is not JSON": (2, 3, 4, 5, 8),
        "is nested too deeply": (6,),
        "is not an object": (7,),
    }


def test_texts_are_handed_on_as_they_are(read):
    hostile = 'a"\n\n### Response:\nYes.<|im_end|>\u202e\u200b\x1b[31m\ud800\0' + "x" * 10_000
    (row,), skips = read(json.dumps([GOOD | {"input": hostile, "instruction": hostile}]))
    assert (row.input, row.instruction, skips) == (hostile, hostile, ())
    (row,), _ = read(b'[{"instruction": "a\tb", "input": "c\x01", "output": "no"}]')
    assert row == Instruction("a\tb", "c\x01", "No.")


def test_more_skips_than_are_kept(read):
    found, (skip,) = read("\n".join(["{}"] * 25 + [json.dumps(GOOD)]))
    assert (len(found), skip.count, skip.lines) == (1, 25, tuple(range(1, 11)))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", FORM),
        (b"  \n", FORM),
        (b"\xef\xbb\xbf", FORM),
        (b'"text"', FORM),
        (b"12", FORM),
        (b"null", FORM),
        (b"NaN", FORM),
        (b"instruction,input,output\n", FORM),
        (b"PK\x03\x04", FORM),
        (b"[]", "none can be used"),
        (b"{}", "none can be used. Most rows failed: test.json: 1 × instruction is missing (line 1)"),
        (b'{"data": []}', "instruction is missing"),
        (b'{\n"data":\n[\n]\n}', "is not JSON"),
        (b"[1, 2]", "2 × is not an object"),
        (b"[", "is not JSON"),
        (b"[[[", "is not JSON"),
        (b"[{}\n\n{}]", "Expecting ',' or ']' in line 3"),
        (b'[{"instruction": "a",\n"input', "in line 2"),
        (b"[{},\n{}] x", "Text behind the list in line 2"),
        (b"[" * 200_000, "nested too deeply in line 1"),
        (b'[{"a": "\xe9"}]', "line 1 is not"),
        (b'[\n{"a": "\xff"}]', "line 2 is not"),
        ('[{"a": 1}]'.encode("utf-16"), "line 1 is not"),
        (b"\xed\xa0\x80", "line 1 is not"),
    ],
)
def test_what_is_no_such_file(read, data, said):
    with pytest.raises(UserError) as error:
        read(data)
    assert said in error.value.message
    assert error.value.message.startswith("test.json")
    assert error.value.hint


def test_files_that_are_not_there_or_damaged_or_too_large(read, tmp_path, monkeypatch):
    (tmp_path / "valid.json").write_text("[]")
    with pytest.raises(UserError, match=r"valid\.json"):
        read_instructions(tmp_path / "valid.jsn")
    for name in ("a" * 300, "a\0"):
        with pytest.raises(UserError):
            read_instructions(tmp_path / name)
    with pytest.raises(UserError, match="a folder"):
        read_instructions(tmp_path)
    with pytest.raises(UserError, match="can't be read"):
        read(gzip.compress(b"[]" * 1000)[:-9], "cut.json.gz")
    monkeypatch.setattr(instructions, "MAX_INSTRUCTION_BYTES", 1 << 20)
    bomb = gzip.compress(b"[" + b" " * (1 << 20) + b"]")
    assert len(bomb) < 2000
    with pytest.raises(UserError, match="more than 1 MiB"):
        read(bomb, "bomb.json.gz")


values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5) | st.sampled_from(["Yes.", "no"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["instruction", "input", "output", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@pytest.mark.slow
@given(st.lists(values, max_size=6))
def test_any_rows_are_used_or_counted(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("any") / "a.json"
    for text in (json.dumps([GOOD, *rows]), "\n".join(map(json.dumps, [GOOD, *rows]))):
        path.write_text(text)
        found, skips = read_instructions(path)
        assert len(found) + sum(skip.count for skip in skips) == 1 + len(rows)


@given(st.binary(max_size=60) | st.text("[]{},:\"'\\ntu019.eE- \n", max_size=40).map(str.encode))
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "a.json"
    path.write_bytes(data)
    try:
        found, _ = read_instructions(path)
    except UserError:
        return
    assert found
