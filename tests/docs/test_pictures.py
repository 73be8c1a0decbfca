"""The pictures of the documentation show the package and the results as they are."""

import pytest

from doubles.doc_scripts import DOCS, load_script

draw_pictures = load_script("draw_pictures")


@pytest.mark.slow
@pytest.mark.parametrize("file", draw_pictures.DRAWINGS)
def test_pictures_are_up_to_date(file):
    drawn = draw_pictures.DRAWINGS[file]()
    assert (DOCS / "pictures" / file).read_text(encoding="utf-8") == drawn, "run: python docs/draw_pictures.py"


def test_rooms_in_a_ring_are_refused():
    with pytest.raises(ValueError, match="each other: one -> two -> one"):
        draw_pictures.rank_rooms({"one": {"two"}, "two": {"one"}})


def test_implied_imports_are_not_drawn():
    rooms = {"top": {"middle", "bottom"}, "middle": {"bottom"}, "bottom": set()}
    assert draw_pictures.drop_implied(rooms) == {"top": {"middle"}, "middle": {"bottom"}, "bottom": set()}
    assert draw_pictures.rank_rooms(rooms) == {"top": 2, "middle": 1, "bottom": 0}
