"""The rules of the package's structure, checked on its source text: nothing is imported.

Files map paths such as ``introspection/io/files.py`` to text, so that the rules can be tried on made-up
ones. Each rule returns a sentence for every place that breaks it.
"""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath

Files = Mapping[str, str]
ROOT = "introspection"
# From low to high: a module imports from its own layer and from lower ones.
LAYERS = (
    *("errors", "io", "concepts", "injection", "models"),
    *("training", "evaluation", "hub", "demo", "cli"),
)
ENTRIES, FILES_IN_A_FOLDER, LINES, USUAL_LINES = 12, 10, 300, 200
# The plan of the current call and a fixed date for chat templates.
CONTEXT_VARIABLES = 2


@dataclass(frozen=True, slots=True)
class Import:
    """``when``: "import" (with the module), "call" (inside a function) or "typing"."""

    module: str
    target: str
    name: str | None
    bound: str
    when: str
    line: int


def read_files(folder: Path) -> dict[str, str]:
    """The package, and the scripts beside it; bytecode and hidden files are none of it."""
    paths = [*folder.glob("*.py"), *(folder / ROOT).rglob("*")]
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8", errors="replace")
        for path in sorted(paths)
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }


@lru_cache(maxsize=1024)
def _tree(text: str) -> ast.Module:
    return ast.parse(text)


def trees_of(files: Files) -> dict[str, ast.Module]:
    """The syntax trees by module; a script beside the package is called as its file is."""
    return {_name(path): _tree(text) for path, text in files.items() if path.endswith(".py")}


def _name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports_of(files: Files) -> list[Import]:
    trees = trees_of(files)
    packages = {_name(path) for path in files if path.endswith("/__init__.py")}
    return [
        found
        for module, tree in trees.items()
        for found in _imports(tree, module, module in packages, trees.keys(), "import")
    ]


def _imports(
    node: ast.AST, module: str, is_package: bool, modules: Collection[str], when: str
) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        inner = when
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            inner = "call" if when == "import" else when
        elif isinstance(child, ast.If) and _last_name(child.test) == "TYPE_CHECKING":
            block = ast.Module(child.body, [])
            yield from _imports(block, module, is_package, modules, "typing")
            child = ast.Module(child.orelse, [])
        elif isinstance(child, ast.Import):
            for alias in child.names:
                bound = alias.asname or alias.name
                yield Import(module, alias.name, None, bound, when, child.lineno)
        elif isinstance(child, ast.ImportFrom):
            base = _base(child, module, is_package)
            for alias in child.names:
                full, bound = f"{base}.{alias.name}", alias.asname or alias.name
                target, name = (full, None) if full in modules else (base, alias.name)
                yield Import(module, target, name, bound, when, child.lineno)
        elif isinstance(child, ast.Call) and _last_name(child.func) == "import_module":
            first = child.args[0] if child.args else None
            if isinstance(first, ast.Constant):
                yield Import(module, str(first.value), None, "", when, child.lineno)
        yield from _imports(child, module, is_package, modules, inner)


def _last_name(node: ast.expr) -> str:
    return getattr(node, "attr", getattr(node, "id", ""))


def _base(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")[: None if is_package and node.level == 1 else is_package - node.level]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _layer(module: str) -> str:
    """errors, io, ...; "" for the package itself and for what is outside of it."""
    first, _, rest = module.partition(".")
    return rest.partition(".")[0] if first == ROOT else ""


def _inside(files: Files) -> list[Import]:
    return [i for i in imports_of(files) if f"{i.target}.".startswith(f"{ROOT}.")]


def upward_imports(files: Files) -> list[str]:
    """The package itself may name everything inside a function; ``__main__`` and scripts are above, but
    of the scripts ``app`` alone opens the demo. No layers in a circle either: it would lead upward."""
    rank = {layer: at for at, layer in enumerate(LAYERS)}
    unknown = {_layer(m) for m in trees_of(files)} - rank.keys() - {"", "__main__"}
    broken = [f"{layer} has no layer" for layer in sorted(unknown)]
    for i in _inside(files):
        here, there = _layer(i.module), _layer(i.target)
        if here == "__main__":
            continue
        if i.module.partition(".")[0] != ROOT:
            wrong = there == "demo" and i.module != "app"
        elif i.module == ROOT:
            wrong = i.when == "import" and i.target != f"{ROOT}.io.version"
        else:
            wrong = rank.get(there, len(rank)) > rank.get(here, len(rank))
        if wrong:
            broken.append(f"{i.module}:{i.line} imports {i.target}")
    return broken


def module_circles(files: Files) -> list[str]:
    graph: dict[str, set[str]] = defaultdict(set)
    for i in _inside(files):
        if i.when == "import":
            graph[i.module].add(i.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" imports ".join(reversed(error.args[1]))]
    return []


def gradio_in_the_engine(files: Files) -> list[str]:
    """Neither a module of ``demo/engine`` nor anything that it imports, late or not, needs Gradio."""
    engine, server = f"{ROOT}.demo.engine", f"{ROOT}.demo.server"
    by_module: dict[str, list[Import]] = defaultdict(list)
    for i in imports_of(files):
        if i.when != "typing":
            by_module[i.module].append(i)
    known = {m for m in trees_of(files) if not f"{m}.".startswith(f"{server}.")}
    new = reached = {m for m in known if f"{m}.".startswith(f"{engine}.")}
    while new:
        new = known & {i.target for m in new for i in by_module[m]} - reached
        reached = reached | new
    return [
        f"{i.module}:{i.line} imports {i.target}"
        for m in sorted(reached)
        for i in by_module[m]
        if i.target.partition(".")[0] in ("gradio", "gradio_client")
    ]


def sizes(files: Files) -> list[str]:
    """Entries of the package, files of each folder, lines of each file."""
    paths = [PurePosixPath(path) for path in files if path.startswith(f"{ROOT}/")]
    entries = {path.parts[1] for path in paths}
    folders = Counter(str(path.parent) for path in paths if str(path.parent) != ROOT)
    lines = {str(p): len(files[str(p)].splitlines()) for p in paths if p.suffix == ".py"}
    broken = [f"{ROOT} has {len(entries)} entries"] if len(entries) > ENTRIES else []
    broken += [f"{folder} has {n} files" for folder, n in folders.items() if n > FILES_IN_A_FOLDER]
    broken += [f"{path} has {n} lines" for path, n in lines.items() if n > LINES]
    long = [path for path, n in lines.items() if n > USUAL_LINES]
    if 3 * len(long) > len(lines):
        broken.append(f"{len(long)} of {len(lines)} files have over {USUAL_LINES} lines")
    return broken


def private_names(files: Files) -> list[str]:
    """``_x`` of a module is used in its own folder only: not imported, not taken as ``module._x``."""
    broken: list[str] = []
    bound: dict[str, dict[str, str]] = defaultdict(dict)
    for i in _inside(files):
        if i.name is None:
            bound[i.module][i.bound] = i.target
        elif _private(i.name) and _folder(files, i.module) != _folder(files, i.target):
            broken.append(f"{i.module}:{i.line} imports {i.target}.{i.name}")
    for module, tree in trees_of(files).items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and _private(node.attr):
                target = bound[module].get(ast.unparse(node.value))
                if target and _folder(files, module) != _folder(files, target):
                    broken.append(f"{module}:{node.lineno} uses {target}.{node.attr}")
    return broken


def _private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _folder(files: Files, module: str) -> str:
    is_package = f"{module.replace('.', '/')}/__init__.py" in files
    return module if is_package else module.rpartition(".")[0]
