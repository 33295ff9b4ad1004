"""What may never stand in the code, whoever writes it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import gl_jax

PACKAGE = Path(gl_jax.__file__).parent
ROOT = PACKAGE.parent
TREES = {
    str(path.relative_to(PACKAGE)): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
}

UNSAFE_MODULES = (
    "pickle _pickle cPickle marshal shelve dill cloudpickle joblib torch yaml "
    "subprocess xmlrpc telnetlib"
).split()
"""They run what they read, or what they are told by a file."""

UNSAFE_CALLS = ("eval", "os.system", "os.popen", "pickle.loads", "np.fromstring")


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """The file, the function's name and the call itself, of every call in gl_jax."""
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield file, ast.unparse(node.func), node


def test_no_module_that_runs_what_it_reads_is_imported() -> None:
    found = []
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            unsafe = {name.partition(".")[0] for name in names} & {*UNSAFE_MODULES}
            found += [f"{file}:{node.lineno} {name}" for name in unsafe]
    assert found == []


def test_nothing_is_evaluated() -> None:
    assert [
        f"{file}:{call.lineno} {name}"
        for file, name, call in calls()
        if name in UNSAFE_CALLS
    ] == []


def test_an_array_file_is_never_a_pickle() -> None:
    """NumPy's readers and writers are told so, whatever their default is."""
    wrong = []
    for file, name, call in calls():
        if name in ("np.load", "np.save", "np.savez", "np.savez_compressed"):
            options = {o.arg: ast.unparse(o.value) for o in call.keywords}
            if options.get("allow_pickle") != "False":
                wrong.append(f"{file}:{call.lineno}")
    assert wrong == []


def test_only_the_experiment_that_the_user_names_is_run() -> None:
    runs = {file for file, name, _ in calls() if name in ("exec", "runpy.run_path")}
    assert runs == {"experiment.py"}


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
