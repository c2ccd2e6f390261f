"""Registry: names, their errors, lazy built-ins, reloads, YAML."""

import importlib
import sys

import pytest
from hyperpyyaml import load_hyperpyyaml

import speechbrain_ser_cl
from speechbrain_ser_cl.registry import REGISTRIES, Registry


@pytest.fixture
def module_folder(tmp_path, monkeypatch):
    """Makes a folder on the import path, for modules that a test writes."""
    monkeypatch.syspath_prepend(tmp_path)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if name.startswith("shapes"):
            del sys.modules[name]


@pytest.fixture
def shapes(module_folder):
    """Makes a registry whose only built-in entry is in its own module."""
    (module_folder / "shapes_builtin.py").write_text(
        "from speechbrain_ser_cl.registry import REGISTRIES\n"
        "@REGISTRIES['shape'].register('square')\n"
        "def square(side=1.0):\n"
        "    return side**2\n"
    )
    REGISTRIES["shape"] = Registry("shape", "shapes", "shapes_builtin")
    yield REGISTRIES["shape"]
    del REGISTRIES["shape"]


def circle(radius=1.0):
    """Another shape."""
    return 3 * radius**2


def test_builtins_are_imported_at_the_first_look_up(shapes):
    assert "shapes_builtin" not in sys.modules
    assert shapes.names() == ["square"]
    assert "shapes_builtin" in sys.modules


def test_get_build_names_and_source(shapes):
    assert shapes.register("circle")(circle) is circle
    assert shapes.get("circle") is circle
    assert shapes.build("circle", radius=2.0) == 12.0
    assert shapes.names() == ["circle", "square"]
    assert shapes.names("c*") == ["circle"]
    assert shapes.names("x*") == []
    assert shapes.source("circle") == circle.__module__.partition(".")[0]
    assert shapes.source("square") == "shapes_builtin"


@pytest.mark.parametrize("name", ["Circle", "big circle", "", "_circle"])
def test_names_are_lower_case(shapes, name):
    with pytest.raises(ValueError, match="lower-case.*like '(big_)?(circle|my_name)'"):
        shapes.register(name)(circle)


def test_a_duplicate_is_an_error_that_names_both(shapes):
    # Also if the built-in with this name is not yet imported.
    with pytest.raises(ValueError, match=r"'square'.*shapes_builtin\.square.*circle"):
        shapes.register("square")(circle)
    assert shapes.build("square", side=3.0) == 9.0


def test_unknown_name_lists_the_nearest(shapes):
    for wrong in ("squares", "SQUARE"):
        with pytest.raises(ValueError, match="did you mean 'square'.*ser-cl list"):
            shapes.get(wrong)
    with pytest.raises(ValueError, match="unknown shape 'xyz'; `ser-cl list shapes`"):
        shapes.source("xyz")


def test_reload_replaces_the_older_entry(shapes):
    before = shapes.get("square")
    importlib.reload(sys.modules["shapes_builtin"])
    assert shapes.get("square") is not before
    assert shapes.names() == ["square"]


def test_build_by_kind(shapes):
    assert speechbrain_ser_cl.build("shape", "square", side=2.0) == 4.0
    with pytest.raises(ValueError, match="unknown kind 'shapes'; expected one of loss"):
        speechbrain_ser_cl.build("shapes", "square")


def test_a_missing_or_unknown_argument_is_reported_with_the_call(shapes):
    with pytest.raises(
        ValueError, match=r"shape 'square': .*'colour'; call it as square\(side=1.0\)"
    ):
        shapes.build("square", colour="red")
    with pytest.raises(ValueError, match=r"loss 'moco': .*'size'.*moco\(size, dim, "):
        speechbrain_ser_cl.build("loss", "moco")


def test_build_from_yaml(shapes):
    hparams = load_hyperpyyaml(
        """
        area: !apply:speechbrain_ser_cl.build [shape, square]
        big: !apply:speechbrain_ser_cl.build
            kind: shape
            name: square
            side: 3.0
        flow: !apply:speechbrain_ser_cl.build {kind: shape, name: square, side: 4.0}
        """
    )
    assert hparams == {"area": 1.0, "big": 9.0, "flow": 16.0}


@pytest.mark.parametrize("kind", sorted(REGISTRIES))
def test_the_package_registers_something_of_each_kind(kind):
    registry = REGISTRIES[kind]
    assert registry.names()
    assert {registry.source(name) for name in registry.names()} == {
        "speechbrain_ser_cl"
    }
