"""What may never stand in the code, whoever writes it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import gl_jax

PACKAGE = Path(gl_jax.__file__).parent
ROOT = PACKAGE.parent
FILES = sorted(PACKAGE.rglob("*.py"))

UNSAFE_MODULES = (
    "pickle _pickle cPickle marshal shelve dill cloudpickle joblib torch yaml "
    "subprocess xmlrpc telnetlib"
).split()
"""They run what they read, or what they are told by a file."""

UNSAFE_CALLS = ("eval", "os.system", "os.popen", "pickle.loads", "np.fromstring")


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.fixture(params=FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def tree(request: pytest.FixtureRequest) -> ast.AST:
    return ast.parse(request.param.read_text(encoding="utf-8"))


def test_no_module_that_runs_what_it_reads_is_imported(tree: ast.AST) -> None:
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            assert name.partition(".")[0] not in UNSAFE_MODULES, f"line {node.lineno}"


def test_nothing_is_evaluated(tree: ast.AST) -> None:
    for name, call in calls(tree):
        assert name not in UNSAFE_CALLS, f"{name} in line {call.lineno}"


def test_an_array_file_is_never_a_pickle(tree: ast.AST) -> None:
    """NumPy's readers and writers are told so, whatever their default is."""
    for name, call in calls(tree):
        if name in ("np.load", "np.save", "np.savez", "np.savez_compressed"):
            options = {o.arg: ast.unparse(o.value) for o in call.keywords}
            assert options.get("allow_pickle") == "False", f"line {call.lineno}"


def test_only_the_experiment_that_the_user_names_is_run() -> None:
    for file in FILES:
        text = ast.parse(file.read_text(encoding="utf-8"))
        runs = [name for name, _ in calls(text) if name in ("exec", "runpy.run_path")]
        assert not runs or file.relative_to(PACKAGE) == Path("config.py"), file


def test_every_requirement_has_a_lower_and_an_upper_bound() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    requirements = [line.partition(";")[0].strip() for line in lines]
    requirements = [line for line in requirements if line and line[0] != "#"]
    assert len(requirements) > 15
    for requirement in requirements:
        assert re.search(r">=\d", requirement), requirement
        without = requirement.split(">=")[0] in UNBOUNDED
        assert without or re.search(r",<\d", requirement), requirement


UNBOUNDED = ("importlib_resources", "rich")
"""Used in a few stable functions; an upper bound would only get in others' way."""


def test_reliability_md_names_tests_that_exist() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", page))
    assert len(named) > 30
    for file, test in sorted(named):
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        functions = {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
        assert test in functions, f"{file} has no {test}"
