"""The reports of a gate have the form of their standards: SARIF 2.1.0, and JUnit as CI servers read it.

The published schema of SARIF is too large to keep here and under terms of its own. What our reports use of it is
written out below: the properties of each object that may be there, those that must be, and what they may hold.
"""

import json
import re
import xml.etree.ElementTree as ET

import pytest

from cowbird.scanning.gate import GateOutcome, make_sarif
from doubles.command import call_command

TEXT = {"text": str}
SARIF = {
    "version": {"2.1.0"},
    "$schema?": re.compile(r"https://\S+"),
    "runs": [
        {
            "tool": {
                "driver": {
                    "name": str,
                    "version?": str,
                    "rules?": [{"id": str, "shortDescription?": TEXT, "help?": TEXT}],
                }
            },
            "columnKind?": {"utf16CodeUnits", "unicodeCodePoints"},
            "results?": [
                {
                    "message": TEXT,
                    "ruleId?": str,
                    "level?": {"none", "note", "warning", "error"},
                    "locations?": [
                        {
                            "physicalLocation?": {
                                "artifactLocation?": {"uri?": re.compile(r"[A-Za-z0-9._~%!$&'()*+,;=:@/-]+")},
                                "region?": {"startLine?": range(1, 1 << 31)},
                            },
                            "logicalLocations?": [{"name?": str, "fullyQualifiedName?": str}],
                        }
                    ],
                    "partialFingerprints?": {re.compile(r"\w+/v\d+"): str},
                    "baselineState?": {"new", "unchanged", "updated", "absent"},
                    "properties?": dict,
                }
            ],
            "invocations?": [
                {
                    "executionSuccessful": bool,
                    "exitCode?": range(256),
                    "toolExecutionNotifications?": [{"level?": {"none", "note", "warning", "error"}, "message": TEXT}],
                }
            ],
        }
    ],
}


def find_faults(value, form, place="$"):
    """Yield where a value differs from a form."""
    if isinstance(form, dict):
        yield from find_property_faults(value, form, place) if isinstance(value, dict) else [f"{place} is no object"]
    elif isinstance(form, list):
        for nth, each in enumerate(value if isinstance(value, list) else [None]):
            yield from find_faults(each, form[0], f"{place}[{nth}]")
    elif not is_allowed(value, form):
        yield f"{place} is {value!r}"


def is_allowed(value, form):
    """Tell whether a value is of a type, matches a pattern, or is among some."""
    if isinstance(form, re.Pattern):
        return isinstance(value, str) and form.fullmatch(value) is not None
    return type(value) is not bool and value in form if isinstance(form, set | range) else type(value) is form


def find_property_faults(value, form, place):
    """Yield where an object lacks a property, or has one that it must not."""
    patterns = [key for key in form if isinstance(key, re.Pattern)]
    names = {key.removesuffix("?"): key for key in form if isinstance(key, str)}
    yield from (f"{place} lacks {name}" for name, key in names.items() if name == key and name not in value)
    for name, each in value.items():
        key = names.get(name) or next((one for one in patterns if one.fullmatch(name)), None)
        yield from [f"{place}.{name} is unknown"] if key is None else find_faults(each, form[key], f"{place}.{name}")


@pytest.fixture
def reports(tmp_path, monkeypatch, capsys):
    """Return a function that scans titles, and returns both reports."""
    monkeypatch.chdir(tmp_path)

    def make(titles, *more):
        path = tmp_path / "my items.jsonl"
        rows = [title if isinstance(title, bytes) else json.dumps({"title": title}).encode() for title in titles]
        path.write_bytes(b"".join(row + b"\n" for row in rows))
        given = ("--detector", "character_rules", "--device", "cpu", "-q", "--out", "found.jsonl")
        call_command(monkeypatch, capsys, "scan", path.name, *given, "--sarif", "s.json", "--junit", "j.xml", *more)
        return json.loads((tmp_path / "s.json").read_text("ascii")), ET.parse(tmp_path / "j.xml").getroot()

    return make


CATALOGS = {
    "findings": (["Mug", "Pot\u200b", "Cup\u202e <b>", "a\u200b\x00\x1b]]>&<![CDATA["], ()),
    "nothing found": (["Mug", "Cup"], ()),
    "rows not read": (["Mug", b"{", b"\xff", "Pot\u200b"], ()),
    "so many may be flagged": (["Mug", "Pot\u200b"], ("--max-flagged", "5")),
    "an error": ([b"{"], ()),
}


@pytest.mark.parametrize(("titles", "more"), CATALOGS.values(), ids=CATALOGS)
def test_sarif(reports, titles, more):
    assert list(find_faults(reports(titles, *more)[0], SARIF)) == []


def test_a_form_finds_faults():
    made = make_sarif(GateOutcome("a b.csv", (), 0, 0, None, None))
    assert list(find_faults(made, SARIF)) == []
    made["runs"][0]["invocations"][0] |= {"exitCode": True, "odd": 1}
    del made["runs"][0]["tool"]["driver"]["name"]
    made["version"] = "2.2"
    found = sorted(find_faults(made, SARIF))
    assert [text.partition(" ")[0] for text in found] == [
        "$.runs[0].invocations[0].exitCode", "$.runs[0].invocations[0].odd", "$.runs[0].tool.driver", "$.version",
    ]  # fmt: skip


@pytest.mark.parametrize(("titles", "more"), CATALOGS.values(), ids=CATALOGS)
def test_junit(reports, titles, more):
    root = reports(titles, *more)[1]
    assert root.tag == "testsuites"
    (suite,) = root
    assert suite.tag == "testsuite"
    assert set(suite.attrib) == {"name", "tests", "failures", "errors", "skipped"}
    cases = list(suite)
    assert int(suite.get("tests")) == len(cases) > 0
    for kind, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(suite.get(kind)) == sum(case.find(tag) is not None for case in cases)
    for case in cases:
        assert case.tag == "testcase"
        assert set(case.attrib) == {"classname", "name"}
        assert all(case.attrib.values())
        assert {child.tag for child in case} <= {"failure", "error", "skipped", "system-out"}
        assert len(case) <= 1
        assert all(child.get("message") for child in case if child.tag != "system-out")
    assert len({case.get("name") for case in cases}) == len(cases)
