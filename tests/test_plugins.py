"""Plug-ins by file: what is found, what is told, and what is not hidden."""

import textwrap

import pytest

from cowbird.attacks.base import Attack
from cowbird.attacks.basic_replacement import BasicReplacement
from cowbird.errors import UserError
from cowbird.plugins import PLUGIN_KINDS, find_plugin, list_plugins, summarize_plugin

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
        assert cls.__module__ in [f"{package}.{name}" for package in PLUGIN_KINDS[kind].packages]
        assert summarize_plugin(cls)


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
        find_plugin(kind, name)
    assert f"'{name}'" in error.value.message
    assert all(known in error.value.hint for known in list_plugins(kind))


@pytest.mark.parametrize(
    "name", ["base", "base:Attack", "targets", "basic_replacement:Nope", "os.path", "json.decoder"]
)
def test_a_module_without_the_class_is_a_user_error(name):
    with pytest.raises(UserError, match="defines 0") as error:
        find_plugin("attack", name)
    assert "basic_replacement" in error.value.hint


def test_an_unknown_kind():
    for ask in (lambda: find_plugin("virus", "x"), lambda: list_plugins("virus")):
        with pytest.raises(UserError, match="'virus'") as error:
            ask()
        assert "attack" in error.value.hint


def test_a_plug_in_of_another_kind_is_not_taken():
    with pytest.raises(UserError, match="defines 0"):
        find_plugin("defense", "cowbird.attacks.basic_replacement")


def test_a_strangers_module(module):
    path = module(ATTACK.format(name="Mine"))
    cls = find_plugin("attack", path)
    assert issubclass(cls, Attack)
    assert cls.__name__ == "Mine"
    assert cls(strength=3).strength == 3
    assert summarize_plugin(cls) == "Somebody else's."
    assert find_plugin("attack", f"{path}:Mine") is cls
    assert path not in list_plugins("attack")


def test_two_classes_need_a_name(module):
    path = module(ATTACK.format(name="One") + ATTACK.format(name="Two"))
    with pytest.raises(UserError, match="defines 2") as error:
        find_plugin("attack", path)
    assert f"{path}:ClassName" in error.value.hint
    assert find_plugin("attack", f"{path}:Two").__name__ == "Two"


def test_imported_and_abstract_classes_do_not_count(module):
    path = module(
        "from cowbird.attacks.basic_replacement import BasicReplacement\n" + textwrap.dedent(ATTACK).format(name="Own")
    )
    assert find_plugin("attack", path).__name__ == "Own"
    path = module("from cowbird.attacks.base import Attack\nclass Half(Attack):\n    pass\n")
    with pytest.raises(UserError, match="defines 0"):
        find_plugin("attack", path)


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
    with pytest.raises(error):
        find_plugin("attack", module(text, package="strangers_own" if "strangers_own" in text else None))
