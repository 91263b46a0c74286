"""Dependencies between modules: the allowed directions, and no import cycles.

The imports are parsed from the source, so those inside functions and under ``TYPE_CHECKING`` count
as well.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

import advisor
import fslr

# From low to high: a module imports from its own part and from parts before it, never from later
# ones. A part is a folder or a module directly below the package.
_ORDER = {
    "advisor": (
        *("errors", "runtime", "observability"),  # any part may raise, run tasks and count
        *("policy", "recipes", "registry", "advising", "auth"),
        *("store", "wire", "rpc", "report", "document", "export", "web"),
        *("server", "local", "doctor", "cli"),
        "__main__",
    ),
    "fslr": (
        "advisor",  # the code generated from the protos
        *("errors", "environment", "optional_dependencies", "resource_names"),
        "run_metrics",
        *("yaml_numbers", "_yaml", "profile_files"),
        *("protocols", "testing", "training", "client", "torch", "jax", "integrations"),
    ),
}
_PURE = {
    *("__future__", "bisect", "collections", "dataclasses", "enum", "functools", "math", "numpy"),
    *("itertools", "re", "reprlib", "sys", "typing"),
}
_FOLDERS = {
    "advisor": Path(advisor.__file__).parent,
    "fslr": Path(fslr.__file__).parent,
}


def _sources(package: str) -> dict[str, str]:
    """Return the source of each module of a package by the module's full name."""
    found = {}
    for path in sorted(_FOLDERS[package].rglob("*.py")):
        parts = path.relative_to(_FOLDERS[package]).with_suffix("").parts
        # The name of an __init__ keeps its suffix, so that relative imports resolve.
        found[".".join((package, *parts))] = path.read_text("utf-8")
    return found


def _imports(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Return the full names of what each module imports; modules of ``sources`` by their name."""
    modules = {name.removesuffix(".__init__"): source for name, source in sources.items()}
    found: dict[str, set[str]] = {name: set() for name in modules}
    for name, source in sources.items():
        own = found[name.removesuffix(".__init__")]
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                own |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    parent = name.split(".")[: -node.level]
                    base = ".".join([*parent, *([node.module] if node.module else [])])
                for alias in node.names:
                    submodule = f"{base}.{alias.name}"
                    own.add(submodule if submodule in modules else base)
    return found


def _part(module: str) -> str:
    """Return the part of a package that a module belongs to; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


def _upward(imports: Mapping[str, set[str]], package: str) -> list[str]:
    """Return the imports that go from a lower part of a package to a higher one."""
    rank = {part: position for position, part in enumerate(_ORDER[package])}
    return sorted(
        f"{module} imports {target}"
        for module, targets in imports.items()
        for target in targets
        if target.startswith(f"{package}.")
        and _part(module)
        and rank[_part(target)] > rank[_part(module)]
    )


def _circle(imports: Mapping[str, set[str]]) -> list[str]:
    """Return the modules of a circle of imports, the first one repeated; empty if there is none."""
    finished: set[str] = set()
    path: list[str] = []

    def visit(module: str) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in finished:
            return []
        path.append(module)
        for target in sorted(imports[module] & imports.keys()):
            found = visit(target)
            if found:
                return found
        path.pop()
        finished.add(module)
        return []

    for module in sorted(imports):
        found = visit(module)
        if found:
            return found
    return []


def _names(imports: Mapping[str, set[str]]) -> Iterable[str]:
    return (name for targets in imports.values() for name in targets)


@pytest.mark.parametrize("package", sorted(_ORDER))
def test_every_part_has_a_place_in_the_order(package: str) -> None:
    parts = {_part(module) for module in _imports(_sources(package))} - {""}
    assert parts <= set(_ORDER[package]), "give each new folder its place in _ORDER"


@pytest.mark.parametrize("package", sorted(_ORDER))
def test_no_part_imports_from_a_higher_part(package: str) -> None:
    assert _upward(_imports(_sources(package)), package) == []


@pytest.mark.parametrize("package", sorted(_ORDER))
def test_imports_have_no_cycles(package: str) -> None:
    assert _circle(_imports(_sources(package))) == []


@pytest.mark.parametrize(
    "statement",
    [
        "from advisor.store import profiles",
        "from advisor.store.profiles import ProfileStore",
        "import advisor.store.profiles",
        "from ..store.profiles import ProfileStore",
        "from ..store import profiles",
        "def late() -> None:\n    from advisor.store.profiles import ProfileStore",
        "if TYPE_CHECKING:\n    from advisor.store.profiles import ProfileStore",
    ],
)
def test_an_upward_import_is_found_wherever_it_is_written(statement: str) -> None:
    sources = {"advisor.registry.audit": statement, "advisor.store.profiles": ""}
    assert _upward(_imports(sources), "advisor") == [
        "advisor.registry.audit imports advisor.store.profiles"
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "from advisor.policy import Layout",
        "from . import Layout",
        "def late() -> None:\n    import advisor.policy",
    ],
)
def test_an_import_cycle_is_found(statement: str) -> None:
    sources = {
        "advisor.policy.__init__": "from advisor.policy.layout import Layout",
        "advisor.policy.layout": "from advisor.policy import errors",
        "advisor.policy.errors": statement,
    }
    circle = ["advisor.policy", "advisor.policy.layout", "advisor.policy.errors", "advisor.policy"]
    assert _circle(_imports(sources)) == circle


def test_the_policy_imports_only_itself_numpy_and_pure_parts_of_the_standard_library() -> None:
    imports = _imports({
        name: source
        for name, source in _sources("advisor").items()
        if name.startswith("advisor.policy.")
    })
    outside = {name for name in _names(imports) if not name.startswith("advisor.policy")}
    assert {name.split(".")[0] for name in outside} <= _PURE


def test_recipes_need_only_the_policy_and_read_only_files() -> None:
    sources = {n: s for n, s in _sources("advisor").items() if n.startswith("advisor.recipes")}
    outside = {n for n in _names(_imports(sources)) if not n.startswith("advisor.recipes")}
    ours = {n for n in outside if _top(n) in {"advisor", "fslr"}}
    assert all(n.startswith("advisor.policy") or n == "fslr.profile_files" for n in ours)
    assert {_top(n) for n in outside - ours} <= _PURE | {
        *("difflib", "importlib", "json", "pathlib")
    }


def test_the_client_never_imports_the_service() -> None:
    assert [name for name in _names(_imports(_sources("fslr"))) if _top(name) == "advisor"] == []


@pytest.mark.parametrize(("package", "other"), [("torch", "jax"), ("jax", "torch")])
def test_the_client_of_a_framework_imports_no_other_framework(package: str, other: str) -> None:
    sources = {n: s for n, s in _sources("fslr").items() if n.startswith(f"fslr.{package}.")}
    found = set(_names(_imports(sources)))
    assert [n for n in found if _top(n) == other or n.startswith(f"fslr.{other}")] == []


def _top(module: str) -> str:
    return module.split(".", maxsplit=1)[0]
