"""Modules do not import each other in rings, not even for types alone: what is below reads without what is above."""

import grimp
import pytest


@pytest.fixture(scope="module")
def imports():
    """Return what each module of the package imports of it.

    The package itself is left out: it names all of the public API for type checkers, and is imported for its version.
    """
    graph = grimp.build_graph("cowbird", exclude_type_checking_imports=False, cache_dir=None)
    return {name: graph.find_modules_directly_imported_by(name) - {"cowbird"} for name in graph.modules - {"cowbird"}}


def find_rings(imports):
    """Return the groups of modules each of which is reached from every other."""

    def reach(start):
        seen, waiting = set(), [start]
        while waiting:
            new = imports[waiting.pop()] - seen
            seen |= new
            waiting += new
        return seen

    reached = {module: reach(module) for module in imports}
    rings = {frozenset(other for other in seen if module in reached[other]) for module, seen in reached.items()}
    return [sorted(ring) for ring in rings if ring]


def test_a_ring_is_found():
    known = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}, "e": set()}
    assert find_rings(known) == [["b", "c"]]


def test_there_are_none(imports):
    assert len(imports) > 50
    assert find_rings(imports) == []
