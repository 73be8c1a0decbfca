"""A folder for findings in parts takes the place of an older result alone, and never of somebody's files."""

from pathlib import Path

import pytest

from cowbird.errors import UserError
from cowbird.locks import LOCK_FILE, is_folder_locked
from cowbird.scanning.parts_folder import JudgedPart, PartsWriter, check_parts_output, sum_notices


def part(table=b"PAR1 made up"):
    return JudgedPart(table, 1, 1, 0, 0, 0, 1, {}, [], [])


def write(out, table=b"PAR1 made up"):
    with PartsWriter(out, "key") as writer:
        writer.add(0, part(table))
        writer.finish(1, {})


def test_a_result_takes_the_place_of_an_older_one(tmp_path):
    out, catalog = tmp_path / "found", tmp_path / "items.csv"
    for table in (b"old", b"new"):
        check_parts_output(out, catalog)
        write(out, table)
    assert (out / "part-00000.parquet").read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found"]


def test_the_lock_stays_until_the_folder_has_its_name(tmp_path, monkeypatch):
    seen, rename = [], Path.rename

    def look(path, target):
        if path.name == "found.partial":
            seen.append((path / LOCK_FILE).exists() and is_folder_locked(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", look)
    write(tmp_path / "found")
    assert seen == [True]
    assert not (tmp_path / "found" / LOCK_FILE).exists()
    assert not is_folder_locked(tmp_path / "found")


def test_data_that_is_named_as_parts_are_is_no_result(tmp_path):
    out = tmp_path / "warehouse"
    out.mkdir()
    (out / "part-00000.parquet").write_bytes(b"data")
    with pytest.raises(UserError, match="other files"):
        check_parts_output(out, tmp_path / "items.csv")
    write(tmp_path / "found")
    (tmp_path / "found" / "part-00007.parquet").write_bytes(b"data")
    with pytest.raises(UserError, match="other files"):
        check_parts_output(tmp_path / "found", tmp_path / "items.csv")


def test_the_catalogue_may_lie_neither_in_it_nor_around_it(tmp_path):
    out = tmp_path / "found"
    write(out)
    with pytest.raises(UserError, match="lies in"):
        check_parts_output(out, out / "part-00000.parquet")
    with pytest.raises(UserError, match="lies in"):
        check_parts_output(tmp_path / "inside", tmp_path)


@pytest.mark.parametrize("beside", ["found.replaced", "found.partial"])
def test_what_stands_beside_it_is_not_taken(tmp_path, beside):
    place = tmp_path / beside
    place.mkdir()
    (place / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match=beside):
        check_parts_output(tmp_path / "found", tmp_path / "items.csv")


def test_what_comes_to_stand_in_the_way_while_it_works_is_left(tmp_path):
    out, aside = tmp_path / "found", tmp_path / "found.replaced"
    write(out, b"old")
    aside.mkdir()
    (aside / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="no older result"):
        write(out, b"new")
    assert (aside / "thesis.txt").read_text() == "precious"
    assert (out / "part-00000.parquet").read_bytes() == b"old"


def test_links_and_names_that_are_none_are_refused_first(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    monkeypatch.chdir(tmp_path / "real")
    for name in ("linked", "dangling", "x" * 247):
        with pytest.raises(UserError, match="can't be written"):
            check_parts_output(tmp_path / name, tmp_path / "items.csv")
    with pytest.raises(UserError, match="no name"):
        check_parts_output(type(tmp_path)("."), tmp_path / "items.csv")


def test_a_kill_between_two_renames_loses_nothing(tmp_path):
    out = tmp_path / "found"
    write(out, b"old")
    out.rename(tmp_path / "found.replaced")
    check_parts_output(out, tmp_path / "items.csv")
    with PartsWriter(out, "another key"):
        assert (out / "part-00000.parquet").read_bytes() == b"old"


def test_a_part_that_was_damaged_is_made_again(tmp_path):
    with PartsWriter(tmp_path / "found", "key") as writer:
        writer.add(0, part())
        assert writer.find(0)
        place = writer.folder / "part-00000.parquet"
        place.write_bytes(bytes(place.stat().st_size))
        assert writer.find(0) is None


def test_notices_of_parts_are_summed_and_speak_of_one_alone():
    one = [[1, "{n} titles are lost.", 1, 1, "1 title is lost."]]
    assert [str(each) for each in sum_notices([one])] == ["1 title is lost."]
    assert [str(each) for each in sum_notices([one, one])] == ["2 titles are lost."]
    assert [str(each) for each in sum_notices([[[1, "{n} lost.", 1, 1]], [[1, "said", None, None]]])] == [
        "1 lost.",
        "said",
    ]
