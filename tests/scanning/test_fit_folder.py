"""The folder of a fit: one process at a time, and nothing of its work goes on an error."""

import pytest

from cowbird.errors import UserError
from cowbird.files import write_text
from cowbird.scanning.fit_folder import FIT_FILE, check_free, check_unfinished, hold_fit_folder


def hold(folder):
    return hold_fit_folder(folder, pytest.fail)


def test_a_second_fit_is_told_at_once_and_disturbs_nothing(tmp_path):
    folder = tmp_path / "fit.partial"
    with hold(folder):
        write_text(folder / FIT_FILE, "{}")
        (folder / "round-1").mkdir()
        write_text(folder / "round-1" / "learned", "x")
        with pytest.raises(UserError, match="Another fit is at work in") as error, hold(folder):
            pytest.fail("it works, too")
        assert "--resume" in error.value.hint
        assert (folder / "round-1" / "learned").read_text() == "x"
    with hold(folder):
        assert (folder / "round-1" / "learned").read_text() == "x"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, MemoryError, UserError("x")], ids=repr)
def test_what_was_learned_stays_on_an_error(tmp_path, error):
    folder = tmp_path / "fit.partial"
    with pytest.raises(type(error) if isinstance(error, BaseException) else error), hold(folder):
        write_text(folder / FIT_FILE, "{}")
        write_text(folder / "learned", "x")
        raise error
    assert (folder / "learned").read_text() == "x"
    with pytest.raises(UserError, match="holds an unfinished fit"):
        check_unfinished(folder, resume=False)
    check_unfinished(folder, resume=True)


def test_a_fit_that_learned_nothing_leaves_nothing(tmp_path):
    folder = tmp_path / "fit.partial"
    with pytest.raises(KeyboardInterrupt), hold(folder):
        write_text(folder / FIT_FILE, "{}")
        (folder / "round-1").mkdir()
        raise KeyboardInterrupt
    assert not folder.exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(UserError, match="holds something else"), hold(tmp_path):
        pytest.fail("it works there")
    assert (tmp_path / "mine").read_text() == "x"
    with pytest.raises(UserError, match="not an empty folder"):
        check_free(tmp_path)
