import numpy as np
import pytest

from cowbird.errors import UserError
from cowbird.inspection.platform_log import align_log, load_log, read_item_ids
from inspection.conftest import ITEMS


def write_log(path, rows):
    path.write_text("user_id,item_id\n" + "".join(f"{user},{item}\n" for user, item in rows))
    return str(path)


ROWS = [("u", "a"), ("u", "b"), ("u", "c"), ("v", "x"), ("w", "b"), ("w", "a")]


def test_items_are_numbered_as_the_model_does(tmp_path):
    log = align_log(load_log(write_log(tmp_path / "log.csv", ROWS)), 4, ("c", "b", "a", "z"))
    assert log.interactions.item.tolist() == [2, 1, 0, 1, 2]
    assert log.interactions.lengths.tolist() == [3, 2]
    assert log.users.ids == ("u", "w"), "who did nothing with known items is left out"
    assert (log.dropped, log.assumed, len(log.items)) == (1, "", 4)
    assert log.select_learnable().users.ids == ("u",)
    assert len(log.hash_content()) == 64


def test_the_order_of_the_log_is_assumed_if_sizes_agree(tmp_path, dataset):
    data = load_log(write_log(tmp_path / "log.csv", ROWS))
    assert "order" in align_log(data, 4, None).assumed
    with pytest.raises(UserError, match="5 items and the logs have 4"):
        align_log(data, 5, None)
    with pytest.raises(UserError, match="no event"):
        align_log(data, 2, ("q", "r"))
    few = align_log(load_log(write_log(tmp_path / "few.csv", ROWS[3:])), 3, None)
    with pytest.raises(UserError, match="No user"):
        few.select_learnable()
    whole = align_log(dataset, ITEMS, None)
    some = whole.select_learnable(100, 1)
    assert len(some.users) == 10 and some.interactions.events == 100, "users of ten events each"
    assert len(whole.select_learnable(1).users) == 1
    assert np.array_equal(align_log(dataset, ITEMS, None).interactions.item, dataset.interactions.item)


def test_logs_may_be_a_file_a_folder_or_a_name(tmp_path):
    (tmp_path / "x.inter").write_text("user_id:token\titem_id:token\nu\ta\n")
    assert load_log(str(tmp_path)).items.ids == ("a",)
    assert load_log("synthetic").name == "synthetic"
    for name in ("no such log", "tabular", "movielens_1m"):
        with pytest.raises(UserError, match="not there"):
            load_log(name)


def test_item_ids_are_read_and_checked(tmp_path):
    text, table = tmp_path / "items.txt", tmp_path / "items.csv"
    text.write_text("a\nb\n")
    table.write_text("title,item_id\nA,1\nB,01\n")
    assert read_item_ids(text, 2) == ("a", "b")
    assert read_item_ids(table, 2) == ("1", "01")
    with pytest.raises(UserError, match="should hold 3 different ids"):
        read_item_ids(text, 3)
    text.write_text("a\na\n")
    with pytest.raises(UserError, match="1 of them different"):
        read_item_ids(text, 2)
    table.write_text("id\n1\n2\n")
    with pytest.raises(UserError, match="column item_id"):
        read_item_ids(table, 2)
    text.write_bytes(b"\xff\xfe\n")
    for path in (text, tmp_path / "none.txt", tmp_path):
        with pytest.raises(UserError, match="can't be read"):
            read_item_ids(path, 2)
