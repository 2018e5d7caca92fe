"""The structure of the package: layers, circles, sizes, private names, no state in modules.

Every rule is also tried on made-up files that break it, and on ones that just do not.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import structure
from tests.support.state import module_state
from tests.support.structure import (
    gradio_in_the_engine,
    module_circles,
    private_names,
    sizes,
    upward_imports,
)

Rule = Callable[[structure.Files], list[str]]


@pytest.fixture(scope="module")
def package() -> dict[str, str]:
    return structure.read_files(Path(__file__).resolve().parents[1])


def test_the_rules_see_the_whole_package(package: dict[str, str]) -> None:
    """No rule is kept because the files, the imports or the layers were not found."""
    modules = structure.trees_of(package)
    assert len(modules) > 100 and {"app", A, f"{A}.__main__"} <= modules.keys()
    layers = {name.split(".")[1] for name in modules if name.startswith("introspection.")}
    assert layers == {*structure.LAYERS, "__main__"}
    imports = structure.imports_of(package)
    assert {i.when for i in imports} == {"import", "call", "typing"}
    inside = {i.target for i in imports if i.target.startswith("introspection.")}
    assert inside <= modules.keys() and len(inside) > 80


def files(**texts: str) -> dict[str, str]:
    """``io__files`` is the module introspection.io.files; ``app`` and ``root`` are what they say."""
    made = {"introspection/__init__.py": texts.pop("root", "")}
    for name, text in texts.items():
        path = name.replace("__", "/")
        made[f"{path}.py" if name == "app" else f"introspection/{path}.py"] = text
        for parent in Path(path).parents:
            if str(parent) != ".":
                made.setdefault(f"introspection/{parent.as_posix()}/__init__.py", "")
    return made


A = "introspection"
LATE = f"def f():\n    from {A}.models import loading\n"
TYPED = f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import {A}.models.loading\n"
NAMED = f"from importlib import import_module\ndef f():\n    import_module('{A}.models.loading')\n"
THROUGH = {
    "demo__engine__x": f"def f():\n    from {A}.demo.shared import y",
    "demo__shared__y": f"from {A}.demo.shared.z import a",
    "demo__shared__z": "from gradio import Error",
}

BROKEN: dict[Rule, list[tuple[dict[str, str], str]]] = {
    upward_imports: [
        (files(io__x=f"from {A}.models import y", models__y=""), "io.x:1 imports"),
        (files(injection__x=LATE, models__loading=""), "injection.x:2 imports"),
        (files(concepts__x=TYPED, models__loading=""), "concepts.x:3 imports"),
        (files(concepts__x=NAMED, models__loading=""), "concepts.x:3 imports"),
        (files(io__x="from ..models import y", models__y=""), "io.x:1 imports"),
        (files(hub__x=f"from {A} import __version__"), "hub.x:1 imports introspection"),
        (files(cli__x=f"import {A}.__main__", __main__=""), "cli.x:1 imports"),
        (files(root=f"from {A}.models import y", models__y=""), "introspection:1"),
        ({**files(demo__page=""), "other.py": f"import {A}.demo.page"}, "other:1"),
        (files(tools__x=""), "tools has no layer"),
    ],
    module_circles: [
        (
            files(io__x=f"from {A}.io import y", io__y=f"try:\n    import {A}.io.x\nfinally: pass"),
            "introspection.io.x imports introspection.io.y imports introspection.io.x",
        ),
    ],
    gradio_in_the_engine: [
        (files(demo__engine__x="def f():\n    import gradio as gr"), "x:2"),
        (files(**THROUGH), "demo.shared.z:1 imports gradio"),
    ],
    sizes: [
        ({f"introspection/{n}.py": "" for n in range(13)}, "introspection has 13 entries"),
        ({f"introspection/io/{n}.css": "" for n in range(11)}, "introspection/io has 11 files"),
        (files(io__x="\n" * 301), "introspection/io/x.py has 301 lines"),
        (files(io__x="\n" * 201, io__y="\n" * 201), "2 of 4 files have over 200 lines"),
    ],
    private_names: [
        (files(io__x=f"from {A}.hub.y import _z", hub__y=""), "imports introspection.hub"),
        (files(io__x=f"from {A}.hub import y\ny._z()", hub__y=""), "uses introspection.hub.y._z"),
        (files(io__x=f"import {A}.hub.y\n{A}.hub.y._z", hub__y=""), "io.x:2 uses"),
        (files(io__x=f"import {A}.hub.y as h\nh._z", hub__y=""), "io.x:2 uses"),
    ],
    module_state: [
        (files(io__x="A = 1\ndef f():\n    global A\n    A = 2"), "io.x:3 changes global A"),
        (files(io__x="A = 1\nA += 2"), "binds A 2 times"),
        (files(io__x="seen: list[int] = list()"), "seen may be changed"),
        (files(io__x="A = {}\ndef f(x):\n    A[x] = 1"), "io.x:3 changes A"),
        (files(io__x="A = [1]\ndef f():\n    def g():\n        A.sort()"), ":4 changes A"),
        (files(io__x="A = [1]\nclass B:\n    def f(self):\n        del A[0]"), ":4 changes A"),
        (files(io__x="A = []\nfor x in (1, 2):\n    A.append(x)"), "io.x:3 changes A"),
        (files(io__x="import threading\nlock = threading.Lock()"), "lock is a Lock"),
        (files(io__x="A = {}", hub__y=f"from {A}.io import x\nx.A.update(a=1)"), "io.x.A"),
        (files(io__x="A = 1", hub__y=f"from {A}.io import x\nx.A = 2"), "hub.y:2 changes"),
        (files(io__x="".join(f"V{n} = ContextVar('{n}')\n" for n in range(3))), "3 context"),
    ],
}

KEPT: list[tuple[Rule, dict[str, str]]] = [
    (
        upward_imports,
        files(
            root=f"from {A}.io.version import v\ndef f():\n    import {A}.models.y",
            __main__=f"from {A}.cli import x",
            app=f"import {A}.demo.page",
            cli__x=f"from {A}.models import y\nimport {A}.demo.page",
            models__y=f"from {A}.models import z\nimport gradio",
            models__z=f"from {A}.io import version",
            **{"io__version": "", "demo__page": ""},
        ),
    ),
    (module_circles, files(io__x=f"from {A}.io import y", io__y=f"def f():\n    import {A}.io.x")),
    (
        gradio_in_the_engine,
        files(
            demo__engine__x=f"from {A}.io import y\ndef f():\n    import {A}.demo.server.z",
            demo__server__z="import gradio",
            demo__shared__w=f"import gradio\nimport {A}.demo.engine.x",
            io__y="",
        ),
    ),
    (sizes, {f"introspection/io/{n}.py": "\n" * (300 if n < 3 else 200) for n in range(10)}),
    (sizes, {f"introspection/{n}.py": "" for n in range(12)}),
    (
        private_names,
        files(
            hub__x=f"from {A}.hub.y import _a\nfrom {A}.io import z\nz.b._c, z.__name__, _a._d",
            **{"hub__y": "", "io__z": ""},
        ),
    ),
    (
        module_state,
        files(
            io__x="A = {1: 2}\nif A:\n    B = 1\nelse:\n    B = 2\nV = ContextVar('v')\n"
            "def f(seen):\n    A = []\n    A.append(1)\n    seen.update(A)\n    V.set(1)\n"
        ),
    ),
]


@pytest.mark.parametrize(
    ("rule", "made", "expected"),
    [(rule, *case) for rule, cases in BROKEN.items() for case in cases],
)
def test_a_broken_rule_is_found(rule: Rule, made: dict[str, str], expected: str) -> None:
    assert expected in "; ".join(rule(made))


@pytest.mark.parametrize(("rule", "made"), KEPT)
def test_what_is_allowed_is_not_found(rule: Rule, made: dict[str, str]) -> None:
    assert rule(made) == []


@pytest.mark.parametrize("rule", BROKEN, ids=lambda rule: rule.__name__)
def test_the_package_keeps_the_rule(rule: Rule, package: dict[str, str]) -> None:
    assert rule(package) == []
