"""The rule that modules hold no state, checked on their source text (see ``structure``)."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping

from tests.support.structure import CONTEXT_VARIABLES, Files, imports_of, trees_of

_MUTATORS = (
    *("add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem"),
    *("popleft", "remove", "reverse", "setdefault", "sort", "update"),
)
# What holds state by its nature; one that is never changed is a constant and has a tuple's name.
_CONTAINERS = ("list", "dict", "set", "bytearray", "defaultdict", "deque", "Counter", "OrderedDict")
_STATEFUL = (
    *("Lock", "RLock", "Event", "Condition", "Semaphore", "BoundedSemaphore", "local", "Thread"),
    *("ThreadPoolExecutor", "Queue", "count", "cycle", "iter", "WeakKeyDictionary", "Random"),
)
_DISPLAYS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)


def module_state(files: Files) -> list[str]:
    """No ``global``; no name of a module that is rebound or whose value is changed, here or from
    another module; no lock, queue or counter; at most CONTEXT_VARIABLES context variables."""
    trees, broken, variables = trees_of(files), [], 0
    bound: dict[str, dict[str, str]] = {name: {} for name in trees}
    for i in imports_of(files):
        if i.name is None and i.target in trees:
            bound[i.module][i.bound] = i.target
    for module, tree in trees.items():
        names = list(_assigned(tree.body))
        for name, value, line in names:
            if isinstance(value, ast.Call):
                made = ast.unparse(value.func).rpartition(".")[2]
                variables += made == "ContextVar"
                if made in _STATEFUL:
                    broken.append(f"{module}:{line} {name} is a {made}")
            contains = isinstance(value, _DISPLAYS) or (
                isinstance(value, ast.Call) and ast.unparse(value.func) in _CONTAINERS
            )
            if contains and not name.isupper() and name != "__all__":
                broken.append(f"{module}:{line} {name} may be changed and is no constant by name")
        own = {name for name, _, _ in names}
        repeated = Counter(name for name, _, _ in names if name != "_")
        broken += [f"{module} binds {name} {n} times" for name, n in repeated.items() if n > 1]
        changes = [*_changes(tree, own), *_foreign(tree, bound[module])]
        broken += [f"{module}:{line} changes {text}" for text, line in changes]
    if variables > CONTEXT_VARIABLES:
        broken.append(f"{variables} context variables")
    return broken


def _assigned(body: list[ast.stmt]) -> Iterator[tuple[str, ast.expr | None, int]]:
    """Names that a module binds, each with its value; of two branches only the first counts."""
    for node in body:
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for name in (part for target in targets for part in ast.walk(target)):
                if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store):
                    yield name.id, node.value, node.lineno
        elif isinstance(node, ast.If | ast.Try | ast.With):
            yield from _assigned(node.body)


def _changes(tree: ast.AST, own: set[str]) -> Iterator[tuple[str, int]]:
    """``global``, and changes of the value of a module's own name, where no local name hides it."""
    for node in ast.iter_child_nodes(tree):
        visible = own
        if isinstance(node, ast.Global):
            yield f"global {', '.join(node.names)}", node.lineno
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            args = {arg.arg for arg in ast.walk(node.args) if isinstance(arg, ast.arg)}
            stored = (n for n in ast.walk(node) if isinstance(n, ast.Name))
            visible = own - args - {n.id for n in stored if isinstance(n.ctx, ast.Store)}
        changed = _changed(node)
        if changed is not None and isinstance(changed, ast.Name) and changed.id in visible:
            yield changed.id, changed.lineno
        yield from _changes(node, visible)


def _foreign(tree: ast.AST, bound: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """Names of other modules, as ``module.name``, that are set or whose value is changed."""
    for node in ast.walk(tree):
        is_set = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del)
        changed = node if is_set else _changed(node)
        if isinstance(changed, ast.Attribute):
            target = bound.get(ast.unparse(changed.value))
            if target is not None:
                yield f"{target}.{changed.attr}", changed.lineno


def _changed(node: ast.AST) -> ast.expr | None:
    """What a node changes in place: an item or attribute is set or deleted, or a method does it."""
    if isinstance(node, ast.Subscript | ast.Attribute):
        return node.value if isinstance(node.ctx, ast.Store | ast.Del) else None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.value if node.func.attr in _MUTATORS else None
    return None
