"""Plug-ins by file: what is found, what is told, and what is not hidden."""

import importlib
import os
import shutil
import subprocess
import sys
import textwrap
from importlib.metadata import entry_points

import pytest

from cowbird import plugin_sources, plugins
from cowbird.attacks.base import Attack
from cowbird.attacks.basic_replacement import BasicReplacement
from cowbird.errors import PluginError, UserError
from cowbird.experiments.reference.entries import ListedEntry, list_entries
from cowbird.experiments.spec import load_spec
from cowbird.plugins import PLUGIN_KINDS, describe_plugins, find_plugin, list_plugins, summarize_plugin

ATTACK = """
    from cowbird.attacks.base import Attack, Plan

    class {name}(Attack):
        \"\"\"Somebody else's.

        More about it.
        \"\"\"

        strength: int = 1

        def run(self, data, rng):
            raise NotImplementedError
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Return a function that writes a module of a package of its own and returns its dotted path."""
    monkeypatch.syspath_prepend(tmp_path)
    made = []

    def write(text, package=None):
        package = package or f"stranger_{tmp_path.name.strip('_').lower()}_{len(made)}"
        made.append(package)
        (tmp_path / package).mkdir(exist_ok=True)
        (tmp_path / package / "__init__.py").touch()
        (tmp_path / package / "mine.py").write_text(textwrap.dedent(text))
        return f"{package}.mine"

    return write


def test_a_shipped_one():
    assert find_plugin("attack", "basic_replacement") is BasicReplacement
    assert (
        summarize_plugin(BasicReplacement) == "Replace next-item labels by target items, histories untouched (APRec)."
    )


@pytest.mark.parametrize("kind", PLUGIN_KINDS)
def test_names(kind):
    found = list_plugins(kind)
    assert found == sorted(found)
    assert "base" not in found, "the base class is no plug-in"
    assert not any(name.startswith("_") for name in found)
    for name in found:
        cls = find_plugin(kind, name)
        homes = (name, f"{name}.{name}")  # a file, or one of its own name in a folder
        assert cls.__module__ in [f"{package}.{home}" for package in PLUGIN_KINDS[kind].packages for home in homes]
        assert summarize_plugin(cls)


@pytest.mark.parametrize("kind", PLUGIN_KINDS)
def test_a_list_made_of_source_is_that_of_the_classes(kind):
    base = plugins._find_base(kind)
    classes = [
        cls
        for path in plugins._list_modules(kind)
        for cls in plugins._find_concrete(importlib.import_module(path), base)
    ]
    wanted = sorted((cls.__module__.rpartition(".")[2], summarize_plugin(cls)) for cls in classes)
    assert [(entry.name, entry.summary) for entry in describe_plugins(kind) if entry.origin == "Cowbird"] == wanted


def test_source_tells_abstract_and_inherited_members(tmp_path, monkeypatch):
    (tmp_path / "rooms").mkdir()
    (tmp_path / "rooms" / "__init__.py").write_text("from cowbird.rooms.base import Base as Known\n")
    (tmp_path / "rooms" / "base.py").write_text(
        'class Base(ABC):\n    """What all are."""\n    @property\n    @abstractmethod\n    def name(self): ...\n'
    )
    (tmp_path / "rooms" / "some.py").write_text(
        "from cowbird.rooms import Known\n"
        "class Half(Known, Generic[T]):\n    x: int\n"
        "class Whole(Half[int]):\n    name = 'whole'\n"
        "class Other(Strange):\n    name = 'other'\n"
    )
    monkeypatch.setattr("cowbird.plugin_sources._ROOT", tmp_path)
    plugin_sources._read.cache_clear()
    found = plugin_sources.list_shipped("cowbird.rooms.some", "cowbird.rooms:Known")
    plugin_sources._read.cache_clear()
    assert found == [("some", "What all are.")]


@pytest.mark.slow
def test_lists_and_descriptions_load_no_torch():
    code = """
import sys
from cowbird.experiments.reference.entries import KINDS, describe_entry, list_entries
for kind in KINDS:
    assert list_entries(kind)
for kind, name in (("attack", "badrec"), ("trigger", "phrase"), ("scenario", "direct"), ("dataset", "movielens_100k")):
    if name in {entry.name for entry in list_entries(kind)}:
        assert describe_entry(kind, name).tables
assert "torch" not in sys.modules and "transformers" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_kind_has_some():
    assert all(list_plugins(kind) for kind in PLUGIN_KINDS)
    assert {"sasrec", "gru4rec", "tallrec"} <= set(list_plugins("victim"))
    assert "synthetic" in list_plugins("dataset")


@pytest.mark.parametrize("kind", PLUGIN_KINDS)
@pytest.mark.parametrize(
    "name",
    ["nope", "", ".", ".x", "x.", "a..b", "../x", "a b", "no_such_package.module", "/etc/passwd", "nope:Class", ":X"],
)
def test_an_unknown_name_is_a_user_error_with_the_known_ones(kind, name):
    with pytest.raises(UserError) as error:
        find_plugin(kind, name, allow_paths=True)
    assert f"'{name}'" in error.value.message
    assert all(known in error.value.hint for known in list_plugins(kind))


@pytest.mark.parametrize(
    "name", ["base", "base:Attack", "targets", "basic_replacement:Nope", "os.path", "json.decoder"]
)
def test_a_module_without_the_class_is_a_user_error(name):
    with pytest.raises(UserError, match="defines 0") as error:
        find_plugin("attack", name, allow_paths=True)
    assert "basic_replacement" in error.value.hint


def test_an_unknown_kind():
    for ask in (lambda: find_plugin("virus", "x"), lambda: list_plugins("virus")):
        with pytest.raises(UserError, match="'virus'") as error:
            ask()
        assert "attack" in error.value.hint


def test_a_plug_in_of_another_kind_is_not_taken():
    with pytest.raises(UserError, match="There is no defense named"):
        find_plugin("defense", "cowbird.attacks.basic_replacement")


def test_a_strangers_module(module):
    path = module(ATTACK.format(name="Mine"))
    cls = find_plugin("attack", path, True)
    assert issubclass(cls, Attack)
    assert cls.__name__ == "Mine"
    assert cls(strength=3).strength == 3
    assert summarize_plugin(cls) == "Somebody else's."
    assert find_plugin("attack", f"{path}:Mine", True) is cls
    assert path not in list_plugins("attack")


def test_two_classes_need_a_name(module):
    path = module(ATTACK.format(name="One") + ATTACK.format(name="Two"))
    with pytest.raises(UserError, match="defines 2") as error:
        find_plugin("attack", path, True)
    assert f"{path}:ClassName" in error.value.hint
    assert find_plugin("attack", f"{path}:Two", True).__name__ == "Two"


def test_imported_and_abstract_classes_do_not_count(module):
    path = module(
        "from cowbird.attacks.basic_replacement import BasicReplacement\n" + textwrap.dedent(ATTACK).format(name="Own")
    )
    assert find_plugin("attack", path, True).__name__ == "Own"
    path = module("from cowbird.attacks.base import Attack\nclass Half(Attack):\n    pass\n")
    with pytest.raises(UserError, match="defines 0"):
        find_plugin("attack", path, True)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("import a_library_nobody_has", ModuleNotFoundError),
        ("from json import no_such_name", ImportError),
        ("raise ImportError('broken')", ImportError),
        ("1 / 0", ZeroDivisionError),
        ("import stranger", ModuleNotFoundError),
        ("import strangers_own.mine.helpers", ModuleNotFoundError),
    ],
)
def test_an_error_inside_a_plug_in_is_not_swallowed(module, text, error):
    """Also where what it misses has a name that its own begins with."""
    path = module(text, package="strangers_own" if "strangers_own" in text else None)
    with pytest.raises(PluginError, match=rf"'{path}' can't be loaded: {error.__name__}.*mine\.py:1\)") as raised:
        find_plugin("attack", path, True)
    assert isinstance(raised.value.__cause__, error)


def test_a_dotted_path_is_not_imported_unless_that_is_allowed(module):
    path = module("raise SystemExit('it ran')")
    with pytest.raises(UserError, match=f"would import the Python module '{path}'") as error:
        find_plugin("attack", f"{path}:Mine")
    assert "--allow-plugins" in error.value.hint
    assert "allow_plugins=True" in error.value.hint
    assert path.partition(".")[0] not in sys.modules
    with pytest.raises(PluginError, match="SystemExit: it ran"):
        find_plugin("attack", path, allow_paths=True)


def test_cowbirds_own_modules_need_no_permission():
    assert find_plugin("attack", "cowbird.attacks.basic_replacement") is BasicReplacement


def test_a_file_in_the_current_folder_is_found_where_that_is_allowed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    (tmp_path / "own_file_here.py").write_text(textwrap.dedent(ATTACK.format(name="Here")))
    with pytest.raises(UserError, match=r"'own_file_here' \(the file own_file_here\.py\)"):
        find_plugin("attack", "own_file_here")
    assert "own_file_here" not in sys.modules
    assert find_plugin("attack", "own_file_here", allow_paths=True).__name__ == "Here"


def test_a_file_in_the_current_folder_stands_in_for_no_plug_in_or_module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("basic_replacement", "textwrap"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('it ran')")
    assert find_plugin("attack", "basic_replacement", allow_paths=True) is BasicReplacement
    with pytest.raises(UserError, match="defines 0"):
        find_plugin("attack", "textwrap", allow_paths=True)


SPEC = """
name = "strange"
[dataset]
name = "synthetic"
[[victims]]
name = "sasrec"
[[attacks]]
name = "{attack}"
"""


def test_a_strangers_spec_imports_nothing(module, tmp_path):
    path, file = module(ATTACK.format(name="Mine")), tmp_path / "spec.toml"
    file.write_text(SPEC.format(attack=path))
    with pytest.raises(UserError, match="would import the Python module"):
        load_spec(file)
    assert path not in sys.modules
    assert type(load_spec(file, allow_plugins=True).attacks[0].options).__name__ == "Mine"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return a function that installs a package: its module, and what its entry points say."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(name, text, *entries, group="cowbird.attacks"):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        info = tmp_path / f"{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *entries]))

    return install


@pytest.mark.parametrize("value", ["pack_whole", "pack_whole:Mine"])
def test_an_installed_package_brings_its_own(package, value, tmp_path):
    package("pack_whole", ATTACK.format(name="Mine"), f"swap = {value}")
    assert "swap" in list_plugins("attack")
    assert "swap" not in list_plugins("defense")
    cls = find_plugin("attack", "swap")
    assert issubclass(cls, Attack)
    entry = next(entry for entry in describe_plugins("attack") if entry.name == "swap")
    assert entry == ("swap", "pack_whole 1.2", "Somebody else's.")
    assert ("basic_replacement", "Cowbird", summarize_plugin(BasicReplacement)) in describe_plugins("attack")
    file = tmp_path / "spec.toml"
    file.write_text(SPEC.format(attack="swap"))
    assert type(load_spec(file).attacks[0].options) is cls
    sys.modules.pop("pack_whole")


def test_an_installed_package_that_is_broken_says_so_and_hides_no_other(package):
    package("pack_broken", "1 / 0", "broken = pack_broken")
    with pytest.raises(UserError, match=r"'broken' of pack_broken 1\.2 can't be loaded: ZeroDivisionError"):
        find_plugin("attack", "broken")
    found = {entry.name: entry for entry in describe_plugins("attack")}
    assert "can't be loaded" in found["broken"].summary
    assert "badrec" in found


@pytest.mark.parametrize("value", ["pack_empty", "pack_empty:Number", "pack_empty:Half"])
def test_an_entry_point_that_is_no_attack_says_so(package, value):
    text = "from cowbird.attacks.base import Attack\nNumber = 3\nclass Half(Attack):\n    pass\n"
    package("pack_empty", text, f"empty = {value}")
    with pytest.raises(UserError, match="is not one Attack"):
        find_plugin("attack", "empty")


def test_an_installed_package_takes_no_shipped_name(package):
    package("pack_thief", ATTACK.format(name="Thief"), "basic_replacement = pack_thief")
    assert find_plugin("attack", "basic_replacement") is BasicReplacement
    assert list_plugins("attack").count("basic_replacement") == 1


def test_what_is_installed_or_removed_meanwhile_is_seen(package, tmp_path):
    package("pack_first", ATTACK.format(name="Mine"), "first = pack_first")
    assert {"first", "second"} & set(list_plugins("attack")) == {"first"}
    package("pack_second", ATTACK.format(name="Mine"), "second = pack_second")
    os.utime(tmp_path, (1, 1))  # clocks of disks are coarse
    assert {"first", "second"} & set(list_plugins("attack")) == {"first", "second"}
    shutil.rmtree(tmp_path / "pack_first-1.2.dist-info")
    os.utime(tmp_path, (2, 2))
    assert {"first", "second"} & set(list_plugins("attack")) == {"second"}


def test_what_is_installed_is_read_once(monkeypatch):
    """To read what a hundred packages offer takes longer than all else about a spec."""
    asked = []
    monkeypatch.setattr(plugins, "entry_points", lambda **given: asked.append(given) or entry_points(**given))
    plugins._read_entry_points.cache_clear()
    for name in ("badrec", "basic_replacement", "badrec"):
        find_plugin("attack", name)
    assert asked == [{"group": "cowbird.attacks"}]


def test_two_installed_packages_of_one_name_are_told_apart_by_hand(package):
    for name in ("pack_one", "pack_two"):
        package(name, ATTACK.format(name="Mine"), f"same = {name}")
    with pytest.raises(UserError, match=r"pack_one 1\.2, pack_two 1\.2"):
        find_plugin("attack", "same")


LOCAL = '''
"""An attack of somebody."""
from cowbird.attacks.random_profiles import RandomProfiles


class Mine(RandomProfiles):
    """Do as random profiles do."""
'''


def test_plugins_of_the_current_folder_are_listed_if_that_is_allowed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    files = {
        "local_list_a.py": LOCAL,
        "local_list_b.py": LOCAL + "\nraise RuntimeError('broken')\n",
        "local_list_c.py": LOCAL.replace("(RandomProfiles)", ""),
        "local_list_d.py": "from pathlib import Path\n\n\nclass Script:\n    pass\n\n\nPath('ran').touch()\n",
        "local_list_e.py": "import cowbird\nfrom pathlib import Path\n\nPath('ran').touch()\n",
        "local_list_f.py": "class (\0",
        "badrec.py": LOCAL,
        "not-a-name.py": LOCAL,
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    os.mkfifo(tmp_path / "local_list_g.py")
    (tmp_path / "local_list_h.py").write_text("(" * 100_000)
    (tmp_path / "local_list_i.py").write_text(LOCAL + "#" * plugins.MAX_PLUGIN_FILE_BYTES)
    found = plugins.describe_local_plugins("attack")
    assert [entry.name for entry in found] == ["local_list_a", "local_list_b"]
    assert found[0] == ("local_list_a", "the file local_list_a.py", "Do as random profiles do.")
    assert "broken" in found[1].summary
    assert not (tmp_path / "ran").exists()
    assert plugins.describe_local_plugins("defense") == [
        ("local_list_b", "the file local_list_b.py", found[1].summary.replace("attack", "defense", 1))
    ]
    assert "local_list_a" not in [entry.name for entry in list_entries("attack")]
    assert list_entries("attack", allow_plugins=True)[-2:] == [ListedEntry(*entry) for entry in found]


@pytest.mark.parametrize(
    "name",
    [
        "cowbird.cli.assets",
        "cowbird.cli.assets:Asset",
        "cowbird.__main__",
        "cowbird.attacks",
        "cowbird.attacks._nothing",
        "cowbird.defenses.strip",
        "cowbird.defenses.p_scanner.rounds.poison_scanner",
        "cowbird.experiments.shipped",
        "x" * 5000,
    ],
)
@pytest.mark.parametrize("allowed", [False, True])
def test_a_name_in_cowbird_is_that_of_a_plug_in_and_nothing_else_is_imported(monkeypatch, name, allowed):
    find_plugin("attack", "basic_replacement")  # what is imported once
    load = plugins.importlib.import_module

    def watch(path, *more):
        assert path.startswith("cowbird.attacks"), f"{path} is imported"
        return load(path, *more)

    monkeypatch.setattr(plugins.importlib, "import_module", watch)
    with pytest.raises(UserError, match="There is no attack named") as error:
        find_plugin("attack", name, allow_paths=allowed)
    assert "basic_replacement" in error.value.hint
