"""The house rules that a machine can hold: who imports whom, and how functions look.

Every rule is one test over all files, which lists each place that breaks it.
"""

import ast
import sys
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import gl_jax

PACKAGE = Path(gl_jax.__file__).parent

# A room may import only from rooms of the lines above its own, and from its own package.
ROWS = (
    "chips colors fields version",
    "config files",
    "images",
    "experiment holes models metrics texture arithmetic",
    "cpu",
    "compilation",
    "parallel",
    "checkpoint",
    "data weights figures",
    "training inpainting",
    "evaluation planning study",
    "serve",
    "options verbs",
    "cli",
    "__main__",
)
# Rooms that stand in a row above that of the package around them, by its number.
STRAYS = {
    3: "inpainting.masks inpainting.blending training.interruption training.watchdog",
}

# They take numbers and arrays, never a configuration.
WITHOUT_CONFIG = (
    "models cpu holes metrics texture training.objectives training.penalties training.augment"
).split()

# Each heavy library has one home; nobody else imports it.
HOMES = {
    "tensorflow": "data",
    "tensorflow_datasets": "data",
    "orbax": "checkpoint",
    "optax": "training",
    "tensorboardX": "training.report.tensorboard",
    "wandb": "training.report.weights_and_biases",
    "rich": "training.report.screen inpainting.progress",
    "matplotlib": "figures",
    "PIL": "images",
    "cv2": "evaluation.baselines evaluation.protocol inpainting.blending images",
    "patchmatch": "evaluation.baselines",
    "safetensors": "weights",
    "starlette": "serve",
    "uvicorn": "serve",
    "pickle": "",
    "torch": "",
}

# What a network or a step need not know: that XLA compiles for processors in its own way.
OF_PROCESSORS = "platform_dependent optimization_barrier mallopt xla_cpu".split()

LONGEST = 80


class File(NamedTuple):
    """One file of gl_jax."""

    room: str
    """`training.loop` for gl_jax/training/loop.py; `models` for its __init__."""
    text: str
    tree: ast.Module


def read(path: Path) -> File:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    text = path.read_text(encoding="utf-8")
    room = ".".join(part for part in parts if part != "__init__")
    return File(room, text, ast.parse(text))


FILES = [read(path) for path in sorted(PACKAGE.rglob("*.py"))]
ROOMS = {file.room for file in FILES} - {""}


MODULES = {f"gl_jax.{room}" for room in ROOMS}


def inside(name: str, rooms: Iterable[str]) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


def row(room: str) -> int | None:
    """The row of the longest name that fits."""
    lines = [*enumerate(ROWS), *STRAYS.items()]
    rows = {name: number for number, names in lines for name in names.split()}
    while room not in rows and "." in room:
        room = room.rpartition(".")[0]
    return rows.get(room)


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module imported anywhere in the file, `from a import b` also as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            # `from package import room` is an import of the room alone.
            if not all(name in MODULES for name in names):
                yield "." * node.level + (node.module or "")
            yield from names


def own_rooms(file: File) -> set[str]:
    """The rooms of gl_jax that a file imports."""
    return {name.removeprefix("gl_jax.") for name in imports(file.tree)} & ROOMS


def functions(file: File) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(file.tree) if isinstance(node, ast.FunctionDef))


# --- who imports whom


def test_every_room_has_a_row():
    assert [room for room in ROOMS if row(room) is None] == []


def test_a_room_imports_only_from_below():
    def may_import(room: str, other: str) -> bool:
        mine, theirs = row(room), row(other)
        same_package = room.partition(".")[0] == other.partition(".")[0]
        return theirs < mine or (theirs == mine and same_package)

    assert [
        f"{file.room} imports {other}"
        for file in FILES
        if file.room
        for other in sorted(own_rooms(file))
        if not may_import(file.room, other)
    ] == []


def test_within_a_package_imports_run_in_one_direction_too():
    # A package is its __init__ here, which its rooms need not name to load it.
    needs = {file.room: own_rooms(file) - {file.room} for file in FILES}
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        raise AssertionError(" imports ".join(reversed(error.args[1]))) from None


def test_imports_are_absolute():
    relative = [f.room for f in FILES if any(n[:1] == "." for n in imports(f.tree))]
    assert relative == []


def test_heavy_libraries_are_imported_in_their_homes_only():
    assert [
        f"{file.room} imports {library}"
        for file in FILES
        for library in {name.partition(".")[0] for name in imports(file.tree)}
        if library in HOMES and not inside(file.room, HOMES[library].split())
    ] == []


def test_arrays_never_see_the_configuration():
    assert [
        file.room
        for file in FILES
        if inside(file.room, WITHOUT_CONFIG) and "config" in own_rooms(file)
    ] == []


def test_the_guest_knows_the_two_operations_only():
    assert [
        f"{file.room} imports {name}"
        for file in FILES
        if inside(file.room, ("cpu",))
        for name in own_rooms(file)
        if not inside(name, ("cpu",)) and name not in ("models", "models.ops")
    ] == []


def test_the_configuration_needs_the_standard_library_only():
    light = (*sys.stdlib_module_names, "gl_jax.fields")
    assert [
        f"{file.room} imports {name}"
        for file in FILES
        if file.room in ("config", "fields")
        for name in imports(file.tree)
        if not inside(name, light)
    ] == []


def test_reading_an_experiment_imports_the_configuration_only():
    """Its `parts(config)` may import more, once it is called."""
    light = (*sys.stdlib_module_names, "gl_jax.config")
    experiments = sorted((PACKAGE.parent / "experiments").glob("*.py"))
    assert [
        f"{file.name} imports {name}"
        for file in experiments
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if not isinstance(node, ast.FunctionDef)
        for name in imports(node)
        if not inside(name, light)
    ] == []


# --- what has one place


def test_pmap_is_called_in_one_place():
    assert [
        file.room
        for file in FILES
        if file.room != "parallel"
        for node in ast.walk(file.tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "jax.pmap"
    ] == []


def test_only_one_room_knows_how_xla_compiles_for_processors():
    knowing = {f.room for f in FILES if any(word in f.text for word in OF_PROCESSORS)}
    knowing = {room for room in knowing if not inside(room, ["cpu"])}
    assert knowing == set()


def test_no_file_is_a_drawer_for_odds_and_ends():
    drawers = {"utils", "util", "common", "helpers", "misc"}
    assert [room for room in ROOMS if drawers & set(room.split("."))] == []


# --- how functions look


def test_randomness_is_called_key_and_comes_first():
    wrong = []
    for file in FILES:
        for function in functions(file):
            arguments = function.args
            names = [a.arg for a in [*arguments.posonlyargs, *arguments.args]]
            names = [name for name in names if name not in ("self", "cls")]
            everything = {*names, *(a.arg for a in arguments.kwonlyargs)}
            samples = function.name.startswith("sample_")
            if "rng" in everything or (samples and names[:1] != ["key"]):
                wrong.append(f"{file.room}.{function.name}")
    assert wrong == []


def public(body: list[ast.stmt]) -> Iterator[ast.ClassDef | ast.FunctionDef]:
    """The public classes and functions of a module or class, and those inside."""
    for node in body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            continue
        if node.name.startswith("_"):
            continue
        yield node
        if isinstance(node, ast.ClassDef):
            yield from public(node.body)


def test_whatever_is_public_has_a_docstring():
    assert [
        f"{file.room}.{getattr(node, 'name', '')}"
        for file in FILES
        for node in (file.tree, *public(file.tree.body))
        if not ast.get_docstring(node)
    ] == []


def test_no_function_is_longer_than_a_screen_or_two():
    assert [
        f"{file.room}.{function.name} has {length} lines"
        for file in FILES
        for function in functions(file)
        if (length := (function.end_lineno or 0) - function.lineno + 1) > LONGEST
    ] == []
