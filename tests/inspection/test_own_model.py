import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cowbird.errors import UserError
from cowbird.inspection.model import TunableModel
from cowbird.inspection.opening import open_model
from cowbird.rng import torch_stream
from cowbird.storage import read_tensors, write_tensors
from cowbird.victims.loaders.opening import CheckpointOptions
from cowbird.victims.sequential.base import FittedSequential
from cowbird.victims.sequential.gru4rec import GRU4Rec
from cowbird.victims.sequential.sasrec import SASRec

CPU = torch.device("cpu")


@pytest.fixture(params=[SASRec, GRU4Rec])
def saved(request, tmp_path):
    spec = request.param(hidden=8, max_length=5)
    network = spec.make_network(12)
    network.reset(torch_stream(0, "weights"))
    model = FittedSequential(spec, network, 12, CPU)
    path = tmp_path / "model.safetensors"
    model.save(path)
    return model, path


def change_header(path, **changes):
    tensors, header = read_tensors(path)
    record = json.loads(header["cowbird"])
    record["spec"] |= changes.pop("spec", {})
    write_tensors(path, tensors, {"cowbird": json.dumps(record | changes)})


def test_it_answers_as_it_did(saved):
    model, path = saved
    opened = open_model(path, CPU)
    histories = [np.array([1, 2, 3]), np.array([4]), np.arange(9)]
    found = opened.model.score(histories)
    assert isinstance(opened.model, TunableModel)
    assert (found.shape, found.dtype) == ((3, 12), np.float32)
    assert opened.shape is not None and type(opened.shape) is type(model.spec)
    with torch.no_grad():
        traced = opened.model.compute_scores(histories)
    np.testing.assert_allclose(found, traced, atol=1e-6)
    from cowbird.data.types import Interactions

    np.testing.assert_allclose(found, model.score(Interactions.from_lists([[1, 2, 3], [4], range(9)])), atol=1e-6)


def test_item_rows_are_the_model_own(saved):
    opened = open_model(saved[1], CPU)
    (table,) = opened.model.list_item_tables()
    before = opened.model.score([np.array([1])])
    with torch.no_grad():
        table[3] = 0
    assert opened.model.score([np.array([1])])[0, 3] == 0 != before[0, 3]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"items": 10**12}, "items = 1000000000000"),
        ({"items": -1}, "items = -1"),
        ({"spec": {"layers": 10**9}}, "layers"),
        ({"spec": {"hidden": 10**9}}, "hidden"),
        ({"spec": {"hidden": 4}}, "should have the shape"),
        ({"victim": "os.system"}, "os.system"),
        ({"victim": ["x"]}, "no sequential recommender"),
        ({"spec": {"max_length": "x"}}, "max_length"),
        ({"items": None}, "no sequential recommender"),
    ],
)
def test_hostile_headers_are_refused(saved, changes, said):
    change_header(saved[1], **changes)
    with pytest.raises(UserError) as told:
        open_model(saved[1], CPU)
    assert said in told.value.message


def test_hostile_files_are_refused(saved, tmp_path):
    path = saved[1]
    data = path.read_bytes()
    for bad in (b"", data[:40], data[:-10], b"\xff" * 100, (1 << 30).to_bytes(8, "little") + b'{"cowbird"'):
        path.write_bytes(bad)
        with pytest.raises(UserError):
            open_model(path, CPU)
    save_file({"x": torch.zeros(2)}, path, {"cowbird": "[" * 100_000})
    with pytest.raises(UserError):
        open_model(path, CPU)
    with pytest.raises(UserError, match=r"none|a folder"):
        open_model(tmp_path, CPU)


def test_weights_that_are_no_numbers_are_refused(saved):
    tensors, header = read_tensors(saved[1])
    tensors["norm.bias"][0] = torch.nan
    write_tensors(saved[1], tensors, header)
    with pytest.raises(UserError, match="finite"):
        open_model(saved[1], CPU)


def change_tensors(path, change):
    tensors, header = read_tensors(path)
    change(tensors)
    write_tensors(path, tensors, header)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda held: held.update({"\x1b[2Jevil": torch.zeros(64)}), r"tensor '\\x1b\[2Jevil' is not one of a"),
        (lambda held: held.pop("norm.bias"), "tensor 'norm.bias' is missing"),
        (lambda held: held.update({"norm.bias": torch.zeros(3)}), r"should have the shape \(8,\), and has \(3,\)"),
        (lambda held: held.update({"norm.bias": torch.zeros(8, dtype=torch.int32)}), "and holds int32"),
        (lambda held: held.update({"norm.bias": torch.zeros(8, dtype=torch.bool)}), "and holds bool"),
    ],
)
def test_tensors_of_another_model_are_told_in_words(saved, change, said):
    change_tensors(saved[1], change)
    with pytest.raises(UserError, match=said):
        open_model(saved[1], CPU)


def test_halved_weights_are_taken(saved):
    change_tensors(saved[1], lambda held: held.update({"norm.bias": held["norm.bias"].to(torch.bfloat16)}))
    assert np.isfinite(open_model(saved[1], CPU).model.score([np.array([1])])).all()


@pytest.mark.parametrize("text", ["", "nothing", '\x1b[31m{"a":' + "[" * 50_000, "[1]", "1e999"])
def test_a_record_that_is_no_json_object_is_told_in_words(saved, text):
    tensors, _ = read_tensors(saved[1])
    write_tensors(saved[1], tensors, {"cowbird": text})
    with pytest.raises(UserError, match="the record in its header is no JSON object") as told:
        open_model(saved[1], CPU)
    assert "char 0" not in str(told.value)


@pytest.mark.parametrize("name", ["", "function:a:b", "process:true"])
def test_settings_of_other_libraries_are_refused(saved, name):
    with pytest.raises(UserError, match="--format and --set are for files of other libraries"):
        open_model(name or saved[1], CPU, CheckpointOptions(settings={"heads": "zz"}))
