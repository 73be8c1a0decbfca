"""Names in the package: a public name means one thing, functions are verbs, private modules stay in their room."""

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path

import cowbird

ROOT = Path(cowbird.__file__).parent
VERBS_IN_ED = frozenset(
    {"bleed", "breed", "embed", "exceed", "feed", "need", "proceed", "seed", "shed", "speed", "succeed"}
)
NO_VERBS = frozenset(
    """
    alone apart best big bound built chosen done drawn each early every few first found fresh given gone grown held
    hidden kept known large last late left lost made many most new next none older other own plainly quick rare said
    seen several short shown small some spent sold told together taken taught usable whole wholly written
    """.split()  # noqa: SIM905
)
"""Adjectives, adverbs and irregular participles that a function was once named after, or might be."""
MAX_SHARE = 0.01
"""The largest share of functions whose first word may be no verb: what well-kept code bases stay below."""


@cache
def read_modules():
    """Return the syntax tree of each module, by its name; not before a test asks, for this takes a second."""
    return {
        ".".join(("cowbird", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): ast.parse(
            path.read_text(encoding="utf-8")
        )
        for path in sorted(ROOT.rglob("*.py"))
    }


@cache
def walk_modules():
    """Return the functions and imports of each module, at any place in it."""
    kept = ast.FunctionDef | ast.AsyncFunctionDef | ast.Import | ast.ImportFrom
    return {
        module: [node for node in ast.walk(tree) if isinstance(node, kept)] for module, tree in read_modules().items()
    }


def list_definitions():
    """Return public classes and constants that stand in several modules: name, module, what it is."""
    found = defaultdict(dict)
    for module, tree in read_modules().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                found[node.name][module] = f"class at line {node.lineno} of {module}"
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    for name in ast.walk(target):
                        if isinstance(name, ast.Name):
                            found[name.id][module] = node.value
    return {
        name: {home: what for home, what in map_texts(homes).items() if not what.startswith("TypeVar(")}
        for name, homes in found.items()
        if len(homes) > 1 and not name.startswith("_")
    }


def map_texts(homes):
    """Return what a name is in each module, as text."""
    return {
        home: what if isinstance(what, str) else "" if what is None else ast.unparse(what)
        for home, what in homes.items()
    }


def is_no_verb(name):
    """Tell whether a function's first word is a participle or an adjective."""
    word = name.strip("_").split("_")[0]
    return word in NO_VERBS or (word.endswith("ed") and word not in VERBS_IN_ED)


def list_functions():
    """Return the functions and methods; properties are named by what they are."""
    found = []
    for module, nodes in walk_modules().items():
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("__"):
                marks = {ast.unparse(mark).rpartition(".")[2] for mark in node.decorator_list}
                if not marks & {"property", "cached_property", "setter"}:
                    found.append((node.name, module))
    return found


def resolve_imports(module):
    """Return the dotted names that a module imports, at any place in it."""
    for node in walk_modules()[module]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_a_public_name_means_one_thing():
    twice = {
        name: homes for name, homes in list_definitions().items() if len(homes) > 1 and len(set(homes.values())) > 1
    }
    assert not twice, "\n".join(f"{name}: {', '.join(homes)}" for name, homes in twice.items())


def test_functions_are_verbs():
    functions = list_functions()
    others = [f"{module}.{name}" for name, module in functions if is_no_verb(name)]
    assert len(functions) > 1000, "the test reads the whole package"
    assert len(others) / len(functions) < MAX_SHARE, "\n".join(others)


def test_the_test_knows_a_participle():
    for name in ("judged", "_told", "several", "weighed", "packed_rows", "_kept"):
        assert is_no_verb(name)
    for name in ("judge", "tell", "embed_titles", "seed_all", "read", "_split", "strip_span"):
        assert not is_no_verb(name)


def test_private_modules_are_imported_inside_their_room_only():
    modules = read_modules()
    packages = {name for name in modules if (ROOT.parent / Path(*name.split("."))).is_dir()}
    private = {name for name in modules if name.rpartition(".")[2].startswith("_") and not name.endswith("__main__")}
    crossed = []
    for module in modules:
        room = module if module in packages else module.rpartition(".")[0]
        for target in resolve_imports(module):
            for name in private:
                home = name.rpartition(".")[0]
                if (target == name or target.startswith(f"{name}.")) and not f"{room}.".startswith(f"{home}."):
                    crossed.append(f"{module} imports {name}")
    assert private, "there are private modules to guard"
    assert not crossed, "\n".join(crossed)


def test_metrics_know_no_experiments():
    for module in read_modules():
        if module.startswith("cowbird.metrics"):
            names = [name for name in resolve_imports(module) if name.startswith("cowbird.")]
            assert not [name for name in names if not name.startswith(("cowbird.metrics", "cowbird.errors"))], module
