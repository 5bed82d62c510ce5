"""Digests of the code that a result was computed with, found by the program."""

import ast
import functools
import hashlib
import pathlib

from lwmt_sionna.runs.records import package_versions
from lwmt_sionna.typing import PathLike

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]
# What every run shares, names of types, and what draws records: no result comes from it.
_NO_PART_IN_RESULTS = ("runs", "typing")
_DRAWING = "figures"


def code_digest(*modules: str, package: PathLike = _PACKAGE) -> str:
    """Text that changes with the code of modules and of all that they import of the package.

    The installed versions of what computes count as well (`package_versions`; the backend in use
    does not, which is known only once Keras is imported). Comments, docstrings and the layout of
    the text do not; neither do the room `runs` and modules named `figures`.

    Args:
        *modules: Names of modules, such as `__name__` or `"lwmt_sionna.evaluation.grid"`.
        package: Folder of the package.

    Returns:
        String of 64 hexadecimal digits.

    Raises:
        ValueError: If there is no such module.
    """
    return _code_digest(modules, pathlib.Path(package))


def code_modules(*modules: str, package: PathLike = _PACKAGE) -> tuple[str, ...]:
    """Modules that `code_digest` covers, sorted: those named and what they import of the package.

    Imports are read, not run: those inside of functions count. A name that is imported from a room
    leads to the one module that defines it, through the room's `__init__` or its `_EXPORTS`.
    """
    return tuple(sorted(_Graph(pathlib.Path(package)).reach(modules)))


@functools.cache
def _code_digest(modules, package):
    graph = _Graph(package)
    versions = package_versions()
    del versions["backend"]
    digest = hashlib.sha256(repr(sorted(versions.items())).encode())
    for name in sorted(graph.reach(modules)):
        digest.update(f"{name}\0{ast.dump(_bare(graph.tree(name)))}\n".encode())
    return digest.hexdigest()


class _Graph:
    """What the modules of a package import of each other."""

    def __init__(self, package: pathlib.Path) -> None:
        self.name = package.name
        self.files: dict[str, pathlib.Path] = {}
        for path in sorted(package.rglob("*.py")):
            parts = path.relative_to(package.parent).with_suffix("").parts
            self.files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
        self._trees: dict[str, ast.Module] = {}

    def reach(self, modules):
        unknown = [name for name in modules if name not in self.files]
        if unknown:
            raise ValueError(f"There is no such module in {self.name}. Received: {unknown[0]}")
        found, waiting = set(), set(modules)
        while waiting:
            name = waiting.pop()
            found.add(name)
            waiting |= self.imports(name) - found
        return found

    def tree(self, name):
        if name not in self._trees:
            self._trees[name] = ast.parse(self.files[name].read_bytes())
        return self._trees[name]

    def imports(self, name):
        """The modules of the package that one of them imports."""
        tree, found = self.tree(name), set()
        for node in _walk(tree):
            if isinstance(node, ast.ImportFrom) and self._is_own(node.module):
                for alias in node.names:
                    found |= self._of_name(node.module, alias.name, alias.asname, tree)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if self._is_own(alias.name):
                        found |= self._of_module(alias.name)
        if self._is_room(name):
            found |= {self._exported(name, value) for value in _exports(tree).values()}
        return {each for each in found if not self._has_no_part(each)}

    def _of_name(self, module, name, local, tree):
        """Modules behind `from module import name as local`."""
        if not self._is_room(module):
            return {module}
        if name == "*":
            return self._of_module(module)
        target = self._defining(module, name)
        if not self._is_room(target):
            return {target}
        if target == module:
            return {module}
        # A room as a whole: what is used of it, if that can be seen.
        return self._used_of(target, name if local is None else local, tree)

    def _used_of(self, room, local, tree):
        uses = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id == local]
        attributes = {id(n.value): n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
        if not all(id(use) in attributes for use in uses):
            return self._of_module(room)
        return {self._defining(room, attributes[id(use)]) for use in uses}

    def _defining(self, module, name):
        """The module that defines what a room calls `name`."""
        while self._is_room(module):
            tree = self.tree(module)
            inner = f"{module}.{name}"
            exports = _exports(tree)
            if name in exports:
                module = self._exported(module, exports[name])
                continue
            for node in tree.body:
                alias = _alias(node, name)
                if alias is not None and self._is_own(node.module):
                    module, name = node.module, alias
                    break
            else:
                return inner if inner in self.files else module
        return module

    def _exported(self, room, value):
        """The module that an entry of `_EXPORTS` stands for, named in full or within its room."""
        return value if value in self.files else f"{room}.{value}"

    def _of_module(self, name):
        return {name} if name in self.files else set()

    def _is_room(self, name):
        return self.files[name].name == "__init__.py"

    def _is_own(self, name):
        return name is not None and name in self.files

    def _has_no_part(self, name):
        parts = name.removeprefix(f"{self.name}.").split(".")
        return parts[0] in _NO_PART_IN_RESULTS or parts[-1] == _DRAWING


def _walk(tree):
    """The nodes of a module, without what is there for type checkers alone."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)


def _exports(tree):
    """The dictionary `_EXPORTS` of a room whose names are loaded when first used."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_EXPORTS":
            return ast.literal_eval(node.value)
    return {}


def _alias(node, name):
    """The name that `from ... import` calls `name`, or None."""
    if isinstance(node, ast.ImportFrom):
        for alias in node.names:
            if name == (alias.name if alias.asname is None else alias.asname):
                return alias.name
    return None


def _bare(tree):
    """A module without docstrings and other expressions of text alone."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [child for child in body if not _is_text(child)]
    return tree


def _is_text(node):
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
