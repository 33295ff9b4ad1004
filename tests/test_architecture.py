"""The house rules that a machine can hold: who imports whom, and how functions look."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gl_jax

PACKAGE = Path(gl_jax.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# A room may import only from rooms of lower rows (or its own). The longest name that
# fits counts, so `evaluation.metrics` is not in the row of `evaluation`.
ROWS = {
    "__main__": 8,
    "cli": 7,
    "inpainting.batch": 6,
    "inpainting.completer": 5,
    "training.loop": 4,
    "evaluation": 6,
    "training.steps": 3,
    "training.validation": 3,
    "training.summary": 3,
    "training.initial": 4,
    "training.report": 3,
    "training.checkpoint": 3,
    "weights": 3,
    "weights.export": 4,
    "training.state": 2,
    "training.optimizers": 2,
    "training.parallel": 2,
    "data": 2,
    "models": 1,
    "models.ops": 0,
    "cpu": 1,
    "training.losses": 1,
    "training.interruption": 0,
    "training.watchdog": 0,
    "evaluation.metrics": 0,
    "evaluation.journal": 0,
    "evaluation.memory": 0,
    "evaluation.fid": 0,
    "evaluation.masks": 0,
    "evaluation.figures": 0,
    "evaluation.baselines": 0,
    "inpainting.images": 0,
    "inpainting.masks": 0,
    "inpainting.regions": 0,
    "inpainting.blending": 0,
    "compilation": 0,
    "holes": 0,
    "config": 0,
    "version": 0,
}

# Each heavy library has one home; nobody else imports it.
HOMES = {
    "tyro": ("cli",),
    "tensorflow": ("data",),
    "tensorflow_datasets": ("data",),
    "orbax": ("training.checkpoint",),
    "optax": ("training",),
    "tensorboardX": ("training.report",),
    "rich": ("training.report", "inpainting.batch"),
    "matplotlib": ("training.report", "evaluation.figures"),
    "PIL": ("inpainting.images",),
    "cv2": (
        "evaluation.baselines",
        "evaluation.protocol",
        "inpainting.blending",
        "inpainting.images",
    ),
    "patchmatch": ("evaluation.baselines",),
    "safetensors": ("weights",),
    "pickle": (),
    "torch": (),
}

# They take numbers and arrays, never a configuration.
WITHOUT_CONFIG = ("models", "holes", "training.losses", "evaluation.metrics")

LONGEST = 80


def room(file: Path) -> str:
    """`training.loop` for gl_jax/training/loop.py; `models` for its __init__."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def inside(name: str, rooms: tuple[str, ...]) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


def row(name: str) -> int | None:
    while name not in ROWS and "." in name:
        name = name.rpartition(".")[0]
    return ROWS.get(name)


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module imported anywhere in the file, `from a import b` also as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_rooms(tree: ast.AST) -> set[str]:
    """The rooms of gl_jax that a file imports."""
    known = {room(file) for file in FILES} - {""}
    names = {
        n.removeprefix("gl_jax.") for n in imports(tree) if n.startswith("gl_jax.")
    }
    return names & known


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


@pytest.fixture(params=FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def file(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def test_every_room_has_a_row(file):
    assert room(file) in ("", "training", "inpainting") or row(room(file)) is not None


def test_a_room_imports_only_from_below(file, tree):
    mine = row(room(file))
    if mine is None:
        return
    family = room(file).partition(".")[0]
    above = {
        name
        for name in own_rooms(tree)
        if (other := row(name)) is not None
        and (other > mine or (other == mine and name.partition(".")[0] != family))
        and name not in ("config", "holes", "version")
    }
    assert not above, f"{room(file)} (row {mine}) imports {sorted(above)}"


def test_heavy_libraries_are_imported_in_their_homes_only(file, tree):
    for name in imports(tree):
        library = name.partition(".")[0]
        if library in HOMES:
            assert inside(room(file), HOMES[library]), f"{library} in {room(file)}"


def test_pmap_is_called_in_one_place(file, tree):
    attributes = (n for n in ast.walk(tree) if isinstance(n, ast.Attribute))
    if "jax.pmap" in map(ast.unparse, attributes):
        assert room(file) == "training.parallel"


def test_arrays_never_see_the_configuration(file, tree):
    if inside(room(file), WITHOUT_CONFIG):
        assert "config" not in own_rooms(tree)


def test_the_guest_knows_the_two_operations_only(file, tree):
    if inside(room(file), ("cpu",)):
        others = {name for name in own_rooms(tree) if not inside(name, ("cpu",))}
        assert others <= {"models", "models.ops"}


def test_the_configuration_needs_the_standard_library_only():
    tree = ast.parse((PACKAGE / "config.py").read_text(encoding="utf-8"))
    foreign = {n.partition(".")[0] for n in imports(tree)} - sys.stdlib_module_names
    assert foreign == set()


def test_an_experiment_imports_the_configuration_only():
    for file in (PACKAGE.parent / "experiments").glob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        light = (*sys.stdlib_module_names, "gl_jax.config")
        assert all(inside(name, light) for name in imports(tree)), file.name


def test_randomness_is_called_key_and_comes_first(tree):
    for function in functions(tree):
        arguments = function.args
        names = [a.arg for a in [*arguments.posonlyargs, *arguments.args]]
        names = [name for name in names if name not in ("self", "cls")]
        everything = {*names, *(a.arg for a in arguments.kwonlyargs)}
        assert "rng" not in everything, function.name
        if function.name.startswith("sample_"):
            assert names[0] == "key", function.name


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


def test_whatever_is_public_has_a_docstring(tree):
    assert ast.get_docstring(tree), "the module"
    for node in public(tree.body):
        assert ast.get_docstring(node), node.name


def test_no_function_is_longer_than_a_screen_or_two(tree):
    for function in functions(tree):
        length = (function.end_lineno or 0) - function.lineno + 1
        assert length <= LONGEST, f"{function.name} has {length} lines"


def test_no_file_is_a_drawer_for_odds_and_ends(file):
    assert file.stem not in ("utils", "util", "common", "helpers", "misc")
