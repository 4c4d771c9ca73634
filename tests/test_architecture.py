"""Who may import what. The session logic is the same code on the wall clock and in simulated time."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter

import pytest

from paths import ROOT

PACKAGES = {"foredraft": ROOT / "runtime" / "foredraft", "foredraft_sim": ROOT / "sim" / "foredraft_sim"}
SESSION_LOGIC = ("protocol", "edge", "cloud", "policies")
FLOORS = {
    "foredraft": (
        *("version", "errors", "files", "keys", "loop", "progress", "quieted", "text", "robot"),
        *("protocol", "images", "profiles", "links", "cloud", "edge", "policies"),
        *("engines", "exits", "demo_models", "observe", "server", "openai_api", "api", "calibration", "bench", "cli"),
    ),
    "foredraft_sim": (
        *("errors", "streams", "workers", "peers", "loop", "network", "tokens", "scenario"),
        *("replay", "fit", "world", "chaos", "bench", "tune", "plan", "validate", "pytest_plugin"),
    ),
}
"""Folders and loose files of each package, from the ground up: nothing imports what stands above it."""
BANNED = {"torch", "transformers", "aiohttp", "simpy", "time", "random", "numpy", "socket", "threading"}
CLOCKS = {"monotonic", "perf_counter", "perf_counter_ns", "monotonic_ns", "time_ns", "process_time"}


@cache
def modules(package: str) -> dict[str, ast.Module]:
    """The package's modules by dotted name."""
    root = PACKAGES[package]
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = [package, *path.relative_to(root).with_suffix("").parts]
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


def imports(tree: ast.AST, *, at_import_only: bool = False) -> Iterator[tuple[str, list[str]]]:
    """(module, names imported from it). ``at_import_only``: leave out functions and TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", [alias.name for alias in node.names]
        if at_import_only and (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        ):
            continue
        yield from imports(node, at_import_only=at_import_only)


def top_levels(tree: ast.AST) -> set[str]:
    return {module.split(".")[0] for module, _ in imports(tree)}


def session_logic() -> list[str]:
    return [name for name in modules("foredraft") if name.split(".")[1:2] and name.split(".")[1] in SESSION_LOGIC]


@pytest.mark.parametrize("name", session_logic())
def test_the_session_logic_imports_no_clock_no_chance_no_socket_and_no_model(name: str) -> None:
    assert not top_levels(modules("foredraft")[name]) & BANNED


@pytest.mark.parametrize("name", session_logic())
def test_the_session_logic_never_asks_whether_it_is_simulated(name: str) -> None:
    tree = modules("foredraft")[name]
    identifiers = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    identifiers |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not {word for word in identifiers if "simulat" in word.lower() or "simloop" in word.lower()}
    assert not identifiers & CLOCKS


def test_foredraft_never_imports_its_simulator() -> None:
    guilty = [name for name, tree in modules("foredraft").items() if "foredraft_sim" in top_levels(tree)]
    assert guilty == []


def test_simpy_is_imported_by_the_simulator_alone() -> None:
    assert [name for name, tree in modules("foredraft").items() if "simpy" in top_levels(tree)] == []


def test_the_simulator_reads_no_wall_clock_and_no_global_chance() -> None:
    """Benchmarks measure wall time, that is their job; everybody else takes time from the loop."""
    guilty = []
    for name, tree in modules("foredraft_sim").items():
        for module, names in imports(tree):
            from_random = module == "random" and set(names) != {"Random"}
            if (module == "time" and floor(name) != "bench") or from_random:
                guilty.append((name, module, names))
    assert guilty == []


def imported(package: str, name: str, *, at_import_only: bool = False) -> set[str]:
    """Which of the package's modules a module imports."""
    trees = modules(package)
    used: set[str] = set()
    for module, names in imports(trees[name], at_import_only=at_import_only):
        members = {f"{module}.{member}" for member in names}
        used |= (members & trees.keys()) or ({module} & trees.keys())
    return used - {name}


def floor(module: str) -> str:
    """The folder, or the loose file, that a module belongs to."""
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_imports_itself_in_a_circle(package: str) -> None:
    graph = {name: imported(package, name, at_import_only=True) for name in modules(package)}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_has_its_floor(package: str) -> None:
    assert {floor(name) for name in modules(package)} - {"", "__main__"} == set(FLOORS[package])


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_imports_upwards(package: str) -> None:
    """Imports within functions count as well. The package itself, which names everything lazily, is the roof."""
    rank = {name: number for number, name in enumerate(FLOORS[package])}
    upwards = [
        f"{name} -> {used}"
        for name in modules(package)
        if floor(name) in rank
        for used in imported(package, name)
        if rank.get(floor(used), len(rank)) > rank[floor(name)]
    ]
    assert upwards == []


@pytest.mark.parametrize(("end", "other"), [("edge", "cloud"), ("cloud", "edge")])
def test_the_two_ends_never_import_each_other(end: str, other: str) -> None:
    """Not even through a third: what either needs of the other goes over the protocol."""
    seen: set[str] = set()
    ahead = [name for name in modules("foredraft") if floor(name) == end]
    while ahead:
        name = ahead.pop()
        if name not in seen:
            seen.add(name)
            ahead += imported("foredraft", name)
    assert [name for name in seen if floor(name) == other] == []


def test_relative_imports_are_not_used() -> None:
    guilty = [
        name
        for package in PACKAGES
        for name, tree in modules(package).items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert guilty == []
