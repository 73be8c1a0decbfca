"""Fields that do not fit are told in words: what was expected, and what was got."""

from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Discriminator, Field, Tag, ValidationError

from cowbird.experiments.field_errors import explain_errors


class Color(Enum):
    RED = "red"


class Inner(BaseModel):
    size: int = Field(default=2, multiple_of=2)


class Fields(BaseModel, extra="forbid"):
    whole: int = Field(default=1, ge=1, le=9)
    number: float = Field(default=0.5, gt=0, lt=1, allow_inf_nan=False)
    flag: bool = False
    text: str = Field(default="ab", min_length=2, max_length=4, pattern="^[a-z]+$")
    path: Path = Path()
    items: tuple[int, ...] = Field(default=(1,), min_length=1, max_length=2)
    listed: list[int] = []
    inner: Inner = Inner()
    table: dict[str, int] = {}
    way: Literal["up", "down"] = "up"
    color: Color = Color.RED
    tagged: Annotated[Annotated[Inner, Tag("a")] | Annotated[int, Tag("b")], Discriminator(str)] = 1


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("whole", 0, "must be 1 or more, not 0"),
        ("whole", 10, "must be 9 or less, not 10"),
        ("whole", 1.5, "must be a whole number, not 1.5"),
        ("whole", "x", "must be a whole number, not 'x'"),
        ("whole", {"a": 1}, "must be a whole number, not a table"),
        ("number", 0, "must be more than 0.0, not 0"),
        ("number", 1, "must be less than 1.0, not 1"),
        ("number", float("nan"), "must be a finite number, not nan"),
        ("number", "much", "must be a number, not 'much'"),
        ("flag", "maybe", "must be true or false, not 'maybe'"),
        ("flag", [], "must be true or false, not []"),
        ("text", 3, "must be text in quotes, not 3"),
        ("text", True, "must be text in quotes, not true"),
        ("text", "a", "must be text of 2 characters or more, not 'a'"),
        ("text", "abcde", "must be text of 4 characters at most"),
        ("text", "AB", "must be text of the form ^[a-z]+$, not 'AB'"),
        ("path", 3, "must be a path in quotes, not 3"),
        ("items", 3, "must be a list in [ ], not 3"),
        ("items", [], "must have 1 or more entries, and has 0"),
        ("items", [1, 2, 3], "must have 2 entries at most"),
        ("listed", 3, "must be a list in [ ], not 3"),
        ("inner", 3, "must be a table, not 3"),
        ("inner", {"size": 3}, "size: must be a multiple of 2, not 3"),
        ("table", 3, "must be a table, not 3"),
        ("way", "left", "must be 'up' or 'down', not 'left'"),
        ("color", "blue", "must be 'red', not 'blue'"),
        ("tagged", "c", "must be of a name that is known: 'a', 'b', not 'c'"),
        ("eggs", 1, "this key is not known"),
    ],
)
def test_what_was_expected_and_what_was_got(name, value, said):
    with pytest.raises(ValidationError) as error:
        Fields.model_validate({name: value})
    told = explain_errors(error.value)
    assert told.startswith(f"{name}")
    assert said in told
    assert "Input" not in told


def test_a_field_is_called_what_the_user_calls_it():
    with pytest.raises(ValidationError) as error:
        Fields.model_validate({"whole": 0, "flag": 3})
    assert explain_errors(error.value, {"whole": "--whole"}).startswith("--whole: must be 1 or more, not 0; flag: ")
