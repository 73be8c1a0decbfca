"""Checkpoints made by somebody who means harm: nothing in them runs, and each is refused in words or read as it is."""

import io
import os
import pickle
import pickletools
import stat
import struct
import zipfile
import zlib

import pytest
import torch
from checkpoint_files import FOLDER

from cowbird.errors import UserError
from cowbird.victims.loaders import _archives, _pickles
from cowbird.victims.loaders._checkpoints import ForeignCheckpoint
from cowbird.victims.loaders._pickles import InertRecord, read_pickle
from cowbird.victims.loaders.opening import CheckpointOptions, open_checkpoint

SETTINGS = CheckpointOptions(settings={"heads": 2})


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *args, state=None):
        self.call = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.call


def pack(path, pickled, entries=(), names=("a",), **fields):
    """Write an archive as torch does: stored entries in a folder."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{names[0]}/data.pkl", pickled)
        archive.writestr(f"{names[-1]}/byteorder", b"little")
        for name, data in entries:
            archive.writestr(name, data, **fields)
    return path


def make_state(size=(3, 4), stride=(4, 1), offset=0, numbers=12, kind=torch.FloatStorage, name="item_embedding.weight"):
    """Return the pickle of a state dict with one tensor, whose storage is `a/data/0`."""
    held = io.BytesIO()
    pickler = pickle._Pickler(held, 2)
    mark = object()
    pickler.persistent_id = lambda value: ("storage", kind, "0", "cpu", numbers) if value is mark else None
    pickler.dump({"state_dict": {name: Call(torch._utils._rebuild_tensor_v2, mark, offset, size, stride, False, {})}})
    return held.getvalue()


def refuse(path, told=None):
    with pytest.raises(UserError, match=told) as error:
        open_checkpoint(path, SETTINGS).make_network()
    assert error.value.hint
    return error.value


# Code


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_that_a_pickle_calls_is_called(tmp_path, protocol, monkeypatch):
    """All ways to call something; the marker would show that one did."""
    marker = tmp_path / "executed"
    command = f"touch {marker}"
    calls = [
        Call(os.system, command),
        Call(eval, f"open({str(marker)!r}, 'w')"),
        Call(exec, f"open({str(marker)!r}, 'w')"),
        Call(getattr(__builtins__, "open", open), str(marker), "w"),
        Call(__import__, "antigravity"),
        Call(torch.hub.load, "a/b", "c"),
        Call(torch.load, str(marker)),
        Call(InertRecord, "x", state={"__setstate__": Call(os.system, command)}),
    ]
    pickled = pickle.dumps({"state_dict": calls, "config": calls}, protocol)
    read = read_pickle(pickled, "it")
    assert [type(call) for call in read["config"]] == [InertRecord] * len(calls)
    refuse(pack(tmp_path / "a.pt", pickled), "no state_dict of tensors")
    (tmp_path / "b.pkl").write_bytes(pickled)
    if protocol >= 2:
        refuse(tmp_path / "b.pkl", "without a checkpoint in it")
    assert not marker.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'touch executed'\ntR.",
        b"(cos\nsystem\nS'touch executed'\no.",
        b"(S'touch executed'\nios\nsystem\n.",
        b"\x80\x02cos\nsystem\nX\x0e\x00\x00\x00touch executed\x85\x81.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0etouch executed\x85R.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0etouch executed\x85}\x92.",
    ],
)
def test_opcodes_that_call(tmp_path, program, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert isinstance(read_pickle(program, "it"), InertRecord)
    refuse(pack(tmp_path / "a.pt", program), "no state_dict")
    assert not (tmp_path / "executed").exists()


def test_nothing_is_imported(tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    assert isinstance(read_pickle(b"cevil_module\nThing\n(tR.", "it"), InertRecord)
    assert isinstance(read_pickle(b"\x80\x04\x8c\x0bevil_module\x8c\x05a.b.c\x93.", "it"), _pickles.Global)


def test_code_beside_real_weights_is_passed_over(tmp_path):
    """The weights are those of the file, whatever stands beside them."""
    whole = FOLDER / "recbole_gru4rec.pth"
    real = open_checkpoint(whole)
    with zipfile.ZipFile(whole) as archive:
        folder = archive.namelist()[0].partition("/")[0]
        entries = [(name.replace(folder, "a", 1), archive.read(name)) for name in archive.namelist()]
    pickled = dict(entries).pop("a/data.pkl")
    # Calls `os.system` first and drops what it returns.
    program = pickled[:2] + b"cos\nsystem\nX\x0e\x00\x00\x00touch executed\x85R0" + pickled[2 + 9 :]
    assert pickled[2:3] == b"\x95", "a frame, which is cut off"
    path = pack(tmp_path / "a.pt", program, [entry for entry in entries if entry[0].startswith("a/data/")])
    network = open_checkpoint(path).make_network()
    for mine, its in zip(network.parameters(), real.make_network().parameters(), strict=True):
        assert torch.equal(mine, its)


# Damaged and oversized pickles


@pytest.mark.parametrize(
    "program",
    [
        b"", b".", b"N", b"NN.", b"(.", b"0.", b"1.", b"R.", b"a.", b"s.", b"u.", b"e.", b"b.", b"\x85.", b"\x87.",
        b"2.", b"(NNNd.", b"}(Nu.", b"]N\x90.", b"q\x00.", b"h\x00.", b"(q\x00.", b"\x94.", b"g5\n.",
        b"gx\n.", b"Q.", b"NQ.",
        b"\x82\x01.", b"\x97.", b"\x98.", b"\xff.", b"\x80\xff.", b"K", b"X\xff\xff\xff\xffab",
        b"\x8d" + b"\xff" * 8 + b"a",
        b"\x8e" + b"\x7f" * 8, b"\x95" + b"\xff" * 8 + b"N.", b"\x8b\xff\xff\xff\x7f", b"\x8b\xff\xff\xff\xff",
        b"I" + b"9" * 5000 + b"\n.",
        b"Fx\n.", b"S'\n.", b"V\\ud800\n.\n", b"c\n.", b"cos\n", b"\x93.", b"NN\x93.", b"]]s.", b"(]tR.",
        b"K\x01K\x02R.", b"}}\x81.",
        b"\x80\x02(X\x07\x00\x00\x00storageq\x00tQ.", b"\x80\x02]](e\x90.",
    ],
)  # fmt: skip
def test_damaged_pickles(tmp_path, program):
    """Each is refused in words, or is a value without a state dict."""
    refuse(pack(tmp_path / "a.pt", program))


def test_cut_and_mixed_up_pickles():
    """Whatever the bytes are, there is a value or an error in words."""
    import random

    with zipfile.ZipFile(FOLDER / "recbole_gru4rec.pth") as archive:
        whole = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    draw = random.Random(0)
    programs = [whole[: draw.randrange(len(whole))] for _ in range(8)]
    for _ in range(30):
        changed = bytearray(whole)
        for _ in range(draw.randrange(1, 6)):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        programs.append(bytes(changed))
    codes = [op.code.encode("latin-1") for op in pickletools.opcodes]
    programs += [b"".join(draw.choices(codes, k=30)) + b"." for _ in range(200)]
    refused = 0
    for program in programs:
        try:
            read_pickle(program, "it")
        except UserError:
            refused += 1
    assert refused > 150


@pytest.mark.slow
def test_deep_and_endless_structures():
    """They are built, and nobody walks through them."""
    assert read_pickle(b"]" + b"\x85" * 200_000 + b".", "it") is not None
    read_pickle(b"K\x01" + b"\x85" * 200_000 + b"q\x000(h\x00h\x00\x91.", "it")  # as elements of a set: not hashed
    own = read_pickle(b"]q\x00h\x00a.", "it")
    assert own[0] is own
    read_pickle(b"}q\x00h\x00h\x00s.", "it")  # a dictionary as its own key


def test_bombs_of_copies_and_opcodes(monkeypatch):
    monkeypatch.setattr(_pickles, "MAX_OPCODES", 1000)
    with pytest.raises(UserError, match="opcodes"):
        read_pickle(b"N0" * 1001 + b"N.", "it")
    copies = b"cbuiltins\nlist\nq\x00](" + b"N" * 300 + b"e\x85q\x010" + b"h\x00h\x01R0" * 5 + b"N."
    with pytest.raises(UserError, match="copies"):
        read_pickle(copies, "it")
    monkeypatch.setattr(_pickles, "MAX_PICKLE_BYTES", 10)
    with pytest.raises(UserError, match="bytes long"):
        read_pickle(b"N" * 11, "it")


def test_keys_that_would_meet():
    """Integers of equal hashes, a thousand of them, are no reason to wait; none of them is lost."""
    collide = [(1 << 61) * (number + 1) - (number + 1) for number in range(3000)]
    read = read_pickle(pickle.dumps(dict.fromkeys(collide, 1)), "it")
    assert len(read) == 3000
    assert all(isinstance(key, InertRecord) for key in read)


# Tensors


def write_tensor(path, data=bytes(48), **fields):
    return pack(path, make_state(**fields), [("a/data/0", data)])


def test_the_tensor_that_the_others_spoil_is_fine(tmp_path):
    checkpoint = ForeignCheckpoint(write_tensor(tmp_path / "a.pt"))
    assert checkpoint.read("item_embedding.weight").shape == (3, 4)


@pytest.mark.parametrize(
    "fields",
    [
        {"size": (3, 1 << 39)},
        {"size": (1 << 70, 4)},
        {"size": (-3, 4)},
        {"size": (-3, -4)},
        {"size": (0, 4)},
        {"size": (3, 4, 1) * 5, "stride": (1,) * 15},
        {"size": (3,)},
        {"size": [3, 4]},
        {"size": (3.0, 4.0)},
        {"size": (True, 4)},
        {"size": None},
        {"size": "34"},
        {"size": (4, 4)},
        {"size": (1 << 20, 1 << 20), "stride": (0, 0)},
        {"stride": (-4, 1)},
        {"stride": (4, 2)},
        {"stride": (1 << 62, 1)},
        {"stride": (4,)},
        {"stride": None},
        {"offset": 1},
        {"offset": -1},
        {"offset": 1 << 62},
        {"offset": "0"},
        {"numbers": 13},
        {"numbers": 11},
        {"numbers": -12},
        {"numbers": 1 << 60},
        {"kind": torch.DoubleStorage},
        {"kind": torch.HalfStorage},
        {"kind": torch.IntStorage, "numbers": 12},
        {"kind": torch.LongStorage, "numbers": 6},
        {"kind": torch.BoolStorage, "numbers": 48},
        {"kind": os.system},
        {"kind": dict},
    ],
    ids=str,
)
def test_tensors_that_are_not_what_they_say(tmp_path, fields):
    checkpoint = ForeignCheckpoint(write_tensor(tmp_path / "a.pt", **fields))
    with pytest.raises(UserError, match="item_embedding"):
        checkpoint.read("item_embedding.weight")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite(tmp_path, value):
    data = struct.pack("<12f", *[0.0] * 11, value)
    checkpoint = ForeignCheckpoint(write_tensor(tmp_path / "a.pt", data))
    with pytest.raises(UserError, match="not finite"):
        checkpoint.read("item_embedding.weight")


def test_tensors_that_share_numbers_are_read_and_not_changed(tmp_path):
    shared = torch.arange(12.0).view(3, 4)
    named = {"item_embedding.weight": shared[:2], "other": shared[1:]}
    torch.save(named, tmp_path / "a.pt")
    checkpoint = ForeignCheckpoint(tmp_path / "a.pt")
    assert torch.equal(checkpoint.read("other"), shared[1:])
    changes = {"item_embedding.weight": lambda tensor: tensor.fill_(1), "other": lambda tensor: tensor.fill_(2)}
    with pytest.raises(UserError, match="shares numbers"):
        checkpoint.write(tmp_path / "b.pt", changes)
    assert not (tmp_path / "b.pt").exists()


def test_storages_that_are_not_there(tmp_path):
    for name in ("a/data/1", "a/data/../0", "a/data"):
        with pytest.raises(UserError):
            checkpoint = ForeignCheckpoint(pack(tmp_path / "a.pt", make_state(), [(name, bytes(48))]))
            checkpoint.read("item_embedding.weight")


def test_networks_too_large_to_be_asked(tmp_path):
    state = {name: value.clone() for name, value in _read_all(FOLDER / "recbole_sasrec.pth").items()}
    state["position_embedding.weight"] = torch.zeros(5000, 8)
    torch.save(state, tmp_path / "a.pt")
    refuse(tmp_path / "a.pt", "5000 events at once")
    state["position_embedding.weight"] = torch.zeros(5)
    torch.save(state, tmp_path / "a.pt")
    refuse(tmp_path / "a.pt", "not a matrix")
    state["position_embedding.weight"] = torch.zeros(5, 9)
    torch.save(state, tmp_path / "a.pt")
    refuse(tmp_path / "a.pt", "was expected")
    del state["position_embedding.weight"]
    torch.save(state, tmp_path / "a.pt")
    refuse(tmp_path / "a.pt", "no tensor 'position")


def _read_all(path):
    checkpoint = open_checkpoint(path).checkpoint
    return {name: checkpoint.read(name) for name in checkpoint.tensors}


# Archives


@pytest.mark.parametrize(
    "raw",
    [
        b"../ab",
        b"a/../",
        b"/etc/p",
        b"a//bc",
        b"a/./bc",
        b"a\\bcd",
        b"C:/bcd",
        b"a/b\0c",
        b"a/bcd/",
        b"b/data",
        b"a\xff/bc",
    ],
)
def test_entries_that_lie_elsewhere(tmp_path, raw):
    raw = raw.ljust(6, b"/")[:6]
    path = pack(tmp_path / "a.pt", make_state(), [("a/XXXX", bytes(48))])
    path.write_bytes(path.read_bytes().replace(b"a/XXXX", raw))
    refuse(path, "leads elsewhere|one folder|damaged")


def test_entries_that_are_compressed_encrypted_links_or_twice_there(tmp_path):
    bomb = pack(tmp_path / "a.pt", make_state(), [("a/data/0", bytes(1 << 20))], compress_type=zipfile.ZIP_DEFLATED)
    refuse(bomb, "compressed")
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = pack(tmp_path / "b.pt", make_state(), [("a/data/0", bytes(48)), ("a/data/0", bytes(48))])
    refuse(twice, "two entries")
    link = zipfile.ZipInfo("a/data/0")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    refuse(pack(tmp_path / "c.pt", make_state(), [(link, b"/etc/passwd")]), "link")
    data = bytearray(write_tensor(tmp_path / "d.pt").read_bytes())
    place = data.index(b"PK\1\2")
    data[place + 8] |= 1
    (tmp_path / "d.pt").write_bytes(data)
    refuse(tmp_path / "d.pt", "encrypted")


def change_directory(path, offset, form, value, which=-1):
    """Overwrite a field of the list of entries."""
    data = bytearray(path.read_bytes())
    places = [place for place in range(len(data)) if data[place : place + 4] == b"PK\1\2"]
    struct.pack_into(form, data, places[which] + offset, value)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("offset", "form", "value"),
    [
        (20, "<II", None),
        (24, "<I", 1 << 31),
        (42, "<I", 1 << 31),
        (42, "<I", 0),
        (42, "<I", 7),
        (28, "<H", 65535),
        (30, "<H", 65535),
        (32, "<H", 65535),
        (0, "<I", 0),
        (46, "<B", 255),
    ],
)
def test_lists_of_entries_that_lie(tmp_path, offset, form, value):
    path = write_tensor(tmp_path / "a.pt")
    if value is None:  # a gigabyte, in both places that tell the size
        change_directory(path, 20, "<I", 1 << 30)
        change_directory(path, 24, "<I", 1 << 30)
    else:
        change_directory(path, offset, form, value)
    refuse(path)


def test_entries_that_overlap(tmp_path):
    """The bomb of entries that share their bytes."""
    path = write_tensor(tmp_path / "a.pt")
    data = bytearray(path.read_bytes())
    places = [place for place in range(len(data)) if data[place : place + 4] == b"PK\1\2"]
    for place in (data.index(b"PK\3\4"), places[0]):
        kind = 18 if place != places[0] else 20
        struct.pack_into("<II", data, place + kind, len(data) - 200, len(data) - 200)
    path.write_bytes(data)
    refuse(path)


@pytest.mark.parametrize(
    ("offset", "form", "value"), [(10, "<H", 65535), (12, "<I", 1 << 30), (16, "<I", 1 << 30), (10, "<H", 9)]
)
def test_ends_that_lie(tmp_path, offset, form, value):
    data = bytearray(write_tensor(tmp_path / "a.pt").read_bytes())
    struct.pack_into(form, data, len(data) - 22 + offset, value)
    (tmp_path / "a.pt").write_bytes(data)
    refuse(tmp_path / "a.pt")


def test_a_list_of_a_gigabyte_is_not_read(tmp_path):
    """The file is a gigabyte, sparse; its end says that nearly all of it is the list of entries."""
    size = 1 << 30
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 65000, 65000, size - 100, 0, 0)
    with (tmp_path / "a.pt").open("wb") as file:
        file.write(b"PK\3\4")
        file.truncate(size)
        file.seek(0, io.SEEK_END)
        file.write(end)
    refuse(tmp_path / "a.pt", "65000 entries")


def test_a_header_of_a_gigabyte(tmp_path):
    """A pickle that says so of itself; and a plain file that begins like one."""
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04\x8e" + struct.pack("<Q", 1 << 30) + b"PK")
    refuse(tmp_path / "a.pkl", "not a whole pickle")
    with (tmp_path / "b.pkl").open("wb") as file:
        file.write(b"\x80\x04N.")
        file.truncate(1 << 30)
    refuse(tmp_path / "b.pkl", "bytes long|without a checkpoint")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_files_cut_short(tmp_path, share):
    for name in ("recbole_gru4rec.pth", "rectools_sasrec.pkl"):
        data = (FOLDER / name).read_bytes()
        (tmp_path / name).write_bytes(data[: int(len(data) * share)])
        refuse(tmp_path / name)


def test_what_is_no_file(tmp_path):
    refuse(tmp_path / "nope", "can't be opened")
    refuse(tmp_path, "not a file|can't be opened")
    os.mkfifo(tmp_path / "pipe")
    refuse(tmp_path / "pipe", "not a file")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    refuse(tmp_path / "loop", "can't be opened")
    (tmp_path / "text").write_text("hello")
    refuse(tmp_path / "text", "no model that can be read")


def test_wrong_sums_are_told(tmp_path):
    from cowbird.notices import collect_notices

    path = write_tensor(tmp_path / "a.pt", bytes(48))
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<I", zlib.crc32(bytes(48))), b"\1\2\3\4"))
    with collect_notices() as told:
        checkpoint = ForeignCheckpoint(path)
        checkpoint.read("item_embedding.weight")
    assert any("check sum" in str(notice) for notice in told.list())


def test_limits_are_what_they_are():
    assert _archives.MAX_DIRECTORY_BYTES <= 1 << 25
    assert _pickles.MAX_PICKLE_BYTES <= 1 << 26
