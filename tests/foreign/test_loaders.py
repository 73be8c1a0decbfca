"""Checkpoints of other libraries: their scores here are the libraries' own, and they are written anew as they came."""

import io
import json
import pickle
import zipfile

import numpy as np
import pytest
import torch
from checkpoint_files import FOLDER, NAMES, read_expected

from cowbird.errors import UserError
from cowbird.plugins import find_plugin, list_plugins
from cowbird.victims.loaders.opening import CheckpointOptions, open_checkpoint
from cowbird.victims.sequential.noise import Noise

QUIET = Noise(0.0, torch.device("cpu"))
every_file = pytest.mark.parametrize("name", NAMES)


def open_file(name, path=None, item_map=None):
    return open_checkpoint(path or FOLDER / name, CheckpointOptions(settings=NAMES[name], item_map=item_map))


def score(network, history):
    recent = history[-network.length :]
    item = torch.tensor([recent])
    hidden = network(item, QUIET)[0, len(recent) - 1]
    return (hidden @ network.item.weight[:-1].T).detach().numpy()


@every_file
def test_scores_are_those_of_the_library(name):
    expected, network = read_expected(name), open_file(name).make_network()
    place = {token: number for number, token in enumerate(expected["tokens"])}
    for history, scores in zip(expected["histories"], expected["scores"], strict=True):
        found = score(network, [place[token] for token in history])
        assert np.abs(found - scores).max() < 1e-4
    assert np.ptp(expected["scores"]) > 1, "else any network would do"


@every_file
def test_batches_of_several_lengths(name):
    """What else is in a batch does not matter."""
    network = open_file(name).make_network()
    items = network.item.num_embeddings - 1
    table = torch.full((3, 5), items)
    rows = [[3], [0, 7, 2], [1, 2, 3, 4, 5]]
    for place, row in enumerate(rows):
        table[place, : len(row)] = torch.tensor(row)
    hidden = network(table, QUIET)
    for place, row in enumerate(rows):
        alone = score(network, row)
        found = hidden[place, len(row) - 1] @ network.item.weight[:-1].T
        assert np.allclose(found.detach().numpy(), alone, atol=1e-5)


@pytest.mark.parametrize("name", list_plugins("loader"))
def test_each_loader_knows_its_own_files_alone(name):
    loader, mine = find_plugin("loader", name), 0
    for file in NAMES:
        known = loader.recognize(open_file(file).checkpoint)
        assert known == file.startswith(name)
        mine += known
    assert mine, "a loader has a file here"
    assert loader.library


@every_file
def test_written_anew_with_the_same_weights_it_is_the_same_file(name, tmp_path):
    model = open_file(name)
    model.write(tmp_path / name, model.make_network())
    assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes()


@every_file
def test_changed_weights_are_read_back_by_torch(name, tmp_path):
    model = open_file(name)
    network = model.make_network()
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(0.5)
    model.write(tmp_path / name, network)
    again = open_file(name, tmp_path / name).make_network()
    for (_, mine), (_, its) in zip(network.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(mine, its)
    file = tmp_path / name
    if name.endswith(".pkl"):
        data = file.read_bytes()
        file = io.BytesIO(data[data.index(b"PK\x03\x04") : data.rindex(b"PK\x05\x06") + 22])
    reader = torch._C.PyTorchFileReader(file if isinstance(file, io.BytesIO) else str(file))  # checks the sums
    assert sum(len(reader.get_record(key)) for key in reader.get_all_records()) > 1000


@every_file
def test_items_in_another_order(name, tmp_path):
    model = open_file(name)
    whole = model.make_network()
    order = np.array([4, -1, 0, 11, 7])
    part = model.arrange_items(order)
    network = part.make_network()
    assert network.item.num_embeddings == len(order) + 1
    found, expected = score(network, [0, 2, 4]), score(whole, [4, 0, 7])
    known = order >= 0
    assert np.allclose(found[known], expected[order[known]], atol=1e-5)
    assert found[1] == 0, "an item that the file does not have gets zeros"
    with torch.no_grad():
        network.item.weight[0] += 1
        network.item.weight[1] += 1
    part.write(tmp_path / name, network)
    changed = open_file(name, tmp_path / name).make_network()
    moved = [row for row in range(12) if not torch.equal(changed.item.weight[row], whole.item.weight[row])]
    assert moved == [4]


def test_ids_stand_in_the_file_of_rectools_alone():
    for name in NAMES:
        ids = open_file(name).plan.ids
        assert (ids is not None) == name.startswith("rectools")
    assert open_file("rectools_sasrec.pkl").plan.ids == tuple(read_expected("rectools_sasrec.pkl")["tokens"])


def write_map(path, content):
    path.write_text(content, encoding="utf-8")
    return path


def test_ids_from_a_map(tmp_path):
    tokens = read_expected("recbole_sasrec.pth")["tokens"]
    for lines in (tokens, ["[PAD]", *tokens]):
        opened = open_file("recbole_sasrec.pth", item_map=write_map(tmp_path / "map", "\n".join(lines)))
        assert opened.plan.ids == tuple(tokens)
    maps = [
        json.dumps(tokens),
        json.dumps(["[PAD]", *tokens]),
        json.dumps({token: number + 1 for number, token in enumerate(tokens)}),
        json.dumps({"[PAD]": 0, **{token: number + 1 for number, token in enumerate(tokens)}}),
    ]
    for content in maps:
        opened = open_file("recbole_sasrec.pth", item_map=write_map(tmp_path / "map.json", content))
        assert opened.plan.ids == tuple(tokens)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a\nb", "2 items, and the model has 12"),
        ("", "0 items, and the model has 12"),
        ("\n".join("a" * 1 for _ in range(12)), "twice"),
        ('{"a": 1, "b": 5}', "don't follow each other"),
        ('{"a": "1"}', "no number"),
        ('{"a": true}', "no number"),
        ("[[1], 2]", "neither text nor a number"),
        ("[1, 2", "is not JSON"),
        ("3", "neither a list nor an object"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_a_wrong_map(tmp_path, content, told):
    name = "map.json" if content[:1] in ("[", "{", "3") else "map"
    with pytest.raises(UserError, match=told):
        open_file("recbole_sasrec.pth", item_map=write_map(tmp_path / name, content))


def test_a_map_that_is_no_text_or_not_there(tmp_path):
    (tmp_path / "map").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="UTF-8"):
        open_file("recbole_sasrec.pth", item_map=tmp_path / "map")
    with pytest.raises(UserError, match="can't be opened"):
        open_file("recbole_sasrec.pth", item_map=tmp_path / "nope")
    with pytest.raises(UserError, match="not a file"):
        open_file("recbole_sasrec.pth", item_map=tmp_path)


def test_settings_that_are_missing_or_wrong():
    with pytest.raises(UserError, match="setting heads") as error:
        open_checkpoint(FOLDER / "replay_sasrec_new.ckpt")
    assert "--set heads=NUMBER" in error.value.hint
    for settings, told in [({"heads": 3}, "don't divide"), ({"heads": "x"}, "'heads'"), ({"nope": 1}, "'nope'")]:
        with pytest.raises(UserError, match=told):
            open_checkpoint(FOLDER / "replay_sasrec_new.ckpt", CheckpointOptions(settings=settings))
    with pytest.raises(UserError, match="no loader named"):
        open_checkpoint(FOLDER / "replay_sasrec_new.ckpt", CheckpointOptions(format="nope"))


def test_a_state_dict_alone(tmp_path):
    """People save `model.state_dict()`, too; heads are then given."""
    model = open_file("recbole_sasrec.pth")
    state = {name: model.checkpoint.read(name) for name in model.checkpoint.tensors}
    torch.save(state, tmp_path / "plain.pt")
    with pytest.raises(UserError, match="setting heads"):
        open_checkpoint(tmp_path / "plain.pt")
    settings = {"heads": 2, "activation": "swish"}
    network = open_checkpoint(tmp_path / "plain.pt", CheckpointOptions(settings=settings)).make_network()
    assert np.allclose(score(network, [1, 2]), score(model.make_network(), [1, 2]), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_number_formats(tmp_path, dtype):
    model = open_file("recbole_gru4rec.pth")
    state = {name: model.checkpoint.read(name).to(dtype) for name in model.checkpoint.tensors}
    torch.save(state, tmp_path / "a.pt")
    read = open_checkpoint(tmp_path / "a.pt")
    network = read.make_network()
    assert np.allclose(score(network, [1, 2]), score(model.make_network(), [1, 2]), atol=0.05)
    read.write(tmp_path / "b.pt", network)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()
    if dtype == torch.float16:
        with torch.no_grad():
            network.merge.bias[0] = 1e6
        with pytest.raises(UserError, match="does not fit"):
            read.write(tmp_path / "b.pt", network)


def change_record(name, path, old, new):
    """Write a copy of a file in which bytes of the pickle are others."""
    data = (FOLDER / name).read_bytes()
    assert old in data and len(old) == len(new)
    path.write_bytes(data.replace(old, new))
    return path


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("recbole_gru4rec.pth", b"GRU4Rec", b"GRU4RFC", "RecBole GRU4RFC"),
        ("rectools_sasrec.pkl", b"SASRecTransformerLayers", b"SASRecTransformerLayerX", "transformer_layers_type"),
        ("rectools_sasrec.pkl", b"sasrec.SASRecDataPreparator", b"sasrec.SASRecDataPreparatoX", "data_preparator_type"),
    ],
)
def test_networks_that_are_not_built_here(tmp_path, name, old, new, told):
    with pytest.raises(UserError, match=told) as error:
        open_file(name, change_record(name, tmp_path / "file", old, new))
    assert "foreign_models.md" in error.value.hint


def test_a_variant_with_more_tensors_is_refused(tmp_path):
    model = open_file("recbole_sasrec.pth")
    state = {name: model.checkpoint.read(name) for name in model.checkpoint.tensors} | {"feature.weight": torch.ones(3)}
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"a tensor too many, 'feature\.weight'"):
        open_checkpoint(tmp_path / "a.pt", CheckpointOptions(settings={"heads": 2}))


def test_a_network_that_nobody_knows(tmp_path):
    torch.save({"state_dict": {"mine": torch.ones(3)}}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="does not know") as error:
        open_checkpoint(tmp_path / "a.pt")
    assert all(library in error.value.hint for library in ("RecBole", "RePlay", "RecTools"))


def test_old_and_other_containers(tmp_path):
    torch.save({"a": torch.ones(3)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"a": 1}))
    for name in ("old.pt", "plain.pkl"):
        with pytest.raises(UserError, match="without a checkpoint in it"):
            open_checkpoint(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "compiled.pt", "w") as archive:  # as torch.jit.save does it
        archive.writestr("compiled/data.pkl", b"\x80\x02N.")
        archive.writestr("compiled/code/__torch__.py", b"def forward(self): ...", zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="TorchScript"):
        open_checkpoint(tmp_path / "compiled.pt")
