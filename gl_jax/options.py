"""Command-line options made from a function's signature and a tree of dataclasses.

A parameter before `/` is a positional argument, `*name` are several, every other one is
an option; the `Args:` of the docstring are their help. Option names are in kebab or snake
case, values follow a space or `=`, `--no-name` turns a switch off.
"""

import dataclasses
import difflib
import inspect
import math
import re
import shutil
import textwrap
import typing
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gl_jax.config import Config
from gl_jax.fields import (
    Mark,
    UsageError,
    build,
    describe,
    field_names,
    field_texts,
    from_words,
    hints,
    kind_of,
)

REQUIRED = inspect.Parameter.empty
MAX_COLUMNS = 96
"""Largest width of the help text, in columns."""

Given = dict[str, list[str]]
"""The words that follow each option, by its name in snake case."""


@dataclass(frozen=True)
class Option:
    """An option or a positional argument; the flag of the latter is in capitals."""

    name: str
    hint: Any
    default: Any
    help: str
    flag: str

    @property
    def is_positional(self) -> bool:
        """Returns whether the argument is given without a name."""
        return not self.flag.startswith("--")


def of_function(function: Callable[..., Any], without: type) -> list[Option]:
    """Returns a function's options and positional arguments.

    Parameters of the type `without` are left out.
    """
    texts = _arguments_help(inspect.getdoc(function) or "")
    types = typing.get_type_hints(function, include_extras=True)
    options = []
    for name, parameter in inspect.signature(function).parameters.items():
        hint, flag = types[name], _flag(name)
        if hint is without:
            continue
        if parameter.kind is parameter.POSITIONAL_ONLY:
            flag = name.upper()
        elif parameter.kind is parameter.VAR_POSITIONAL:
            hint, flag = tuple[hint, ...], f"{name.upper()}..."  # type: ignore[valid-type]
        options.append(Option(name, hint, parameter.default, texts.get(name, ""), flag))
    return options


def of_tree(tree: object, prefix: str = "") -> list[Option]:
    """Returns an option for every field of a tree, with the field's value as default."""
    options: list[Option] = []
    texts = field_texts(type(tree))
    for name, hint in hints(type(tree)).items():
        value, path = getattr(tree, name), prefix + name
        if dataclasses.is_dataclass(value):
            options += of_tree(value, f"{path}.")
        else:
            options.append(Option(path, hint, value, texts[name], _flag(path)))
    return options


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _arguments_help(docstring: str) -> dict[str, str]:
    """Returns the text of every argument in the `Args:` of a docstring."""
    _, _, section = docstring.partition("\nArgs:\n")
    return dict(re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE))


# --- words


def split(options: Sequence[Option], words: Iterable[str]) -> Given:
    """Returns the words that belong to each option and each positional argument.

    Raises UsageError for an unknown option or a word too many.
    """
    named = {option.name: option.hint for option in options if not option.is_positional}
    positional = [option for option in options if option.is_positional]
    given: Given = {}
    free: list[str] = []
    queue = deque(words)
    while queue:
        word = queue.popleft()
        if not word.startswith("--"):
            free.append(word)
            continue
        flag, equals, value = word[2:].partition("=")
        name, hint, off = _resolved(flag, named)
        taken = given.setdefault(name, [])
        kind = kind_of(hint)
        if not (kind.origin is tuple and kind.most_words == math.inf):
            # If an option is repeated, the last value counts; a list grows.
            taken.clear()
        if off and not equals:
            taken.append("false")
            continue
        if off:
            raise UsageError(f"--{flag} takes no value.")
        taken += [value] if equals else []
        while queue and not queue[0].startswith("--"):
            if positional and not _takes_another(hint, taken, queue[0]):
                break
            taken.append(queue.popleft())
    for option in positional:
        count = len(free) if kind_of(option.hint).most_words == math.inf else 1
        if free[:count]:
            given[option.name] = free[:count]
        free = free[count:]
    if free:
        raise UsageError(f"no option takes the word {free[0]!r}.")
    return given


def _resolved(flag: str, named: dict[str, Any]) -> tuple[str, Any, bool]:
    """Returns an option's name, its type, and True if the flag turns it off."""
    name = flag.replace("-", "_")
    section = name.rpartition(".")[0]
    if name in named:
        return name, named[name], False
    if section in named and kind_of(named[section]).origin is dict:
        return name, kind_of(named[section]).arguments[1], False
    switch = re.sub(r"(^|\.)no_(\w+)$", r"\1\2", name)
    if switch != name and switch in named and kind_of(named[switch]).type is bool:
        return switch, named[switch], True
    known = [_flag(option)[2:] for option in named]
    raise UsageError(f"unknown option --{flag}.{suggest_option(flag, known)}")


def _takes_another(hint: Any, taken: list[str], word: str) -> bool:
    """Returns whether the word is another value of the option, not an argument."""
    kind = kind_of(hint)
    if kind.type is bool:
        return not taken and word.lower() in ("true", "false")
    return len(taken) < kind.most_words


def suggest_option(flag: str, known: Iterable[str]) -> str:
    """Returns " Did you mean --OPTION?", or "" if no known option is similar.

    A missing or wrong section is corrected, too.
    """
    names = list(known)
    endings = {name.rpartition(".")[2]: name for name in reversed(names)}
    near = difflib.get_close_matches(flag, names, n=1, cutoff=0.8)
    if not near:
        ending = flag.rpartition(".")[2]
        near = [endings[e] for e in difflib.get_close_matches(ending, endings, n=1)]
    return f" Did you mean --{near[0]}?" if near else ""


def arguments(
    options: Sequence[Option], given: Given, prog: str
) -> tuple[list[Any], dict[str, Any]]:
    """Returns the positional and the named arguments of a call.

    Raises UsageError for a value that does not fit its type, and for a missing required
    one.
    """
    values: list[Any] = []
    named: dict[str, Any] = {}
    for option in options:
        if option.name not in given:
            if option.default is REQUIRED:
                about = " ".join(option.help.split())
                text = f": {about}" if option.is_positional else "."
                raise UsageError(f"{prog} needs {option.flag}{text}")
            continue
        value = from_words(option.hint, given[option.name], option.flag)
        if option.flag.endswith("..."):
            values += value
        elif option.is_positional:
            values.append(value)
        else:
            named[option.name] = value
    return values, named


def override(config: Config, changes: Given) -> Config:
    """Returns `config` with fields replaced by words of the command line.

    `changes` maps dotted names, in kebab or snake case, to the words that follow them:
    {"data.resize": ["96", "128"]}. A switch needs no word, "none" clears an optional
    field, an option of an optimizer is named in full ("...options.b1").

    Raises UsageError for an unknown name, a wrong number of words, and values that
    `Config` refuses.
    """
    tree = dataclasses.asdict(config)
    known = field_names(Config)
    named = {_resolved(name, known)[0]: words for name, words in changes.items()}
    for name in named:
        section, _, last = name.rpartition(".")
        if last == "name" and section:
            # Options of one optimizer are unknown to another.
            tree[section]["options"] = {}
    for name, words in named.items():
        *sections, last = name.split(".")
        node = tree
        for section in sections:
            node = node[section]
        node[last] = from_words(_resolved(name, known)[1], words, name)
    return typing.cast(Config, build(Config, tree, ""))


# --- help


def help_text(
    prog: str, docstring: str, own: Sequence[Option], tree: Any | None = None
) -> str:
    """Returns the help of a verb: its own options, then the tree's, section by section.

    Lines have the terminal's width, and at most MAX_COLUMNS.
    """
    columns = min(shutil.get_terminal_size().columns, MAX_COLUMNS)
    needed = [o for o in own if o.default is REQUIRED]
    usage = [
        o.flag if o.is_positional else f"{o.flag} {o.name.upper()}" for o in needed
    ]
    about = " ".join(docstring.partition("\n\n")[0].split())
    parts = [f"usage: {' '.join([prog, *usage])} ...", "", *_wrapped(about, columns)]
    groups: dict[str, list[Option]] = {"": list(own)}
    for option in of_tree(tree) if tree is not None else ():
        groups.setdefault(option.name.rpartition(".")[0], []).append(option)
    for section, options in groups.items():
        if section:
            first_line = (getattr(tree, section).__doc__ or "").partition("\n")[0]
            parts += ["", *_wrapped(f"{section}: {first_line}", columns)]
        for option in options:
            parts += ["", *_entry(option, columns)]
    return "\n".join(parts)


def _wrapped(text: str, columns: int, indent: str = "") -> list[str]:
    return textwrap.wrap(text, columns, initial_indent=indent, subsequent_indent=indent)


def _entry(option: Option, columns: int) -> list[str]:
    kind = kind_of(option.hint)
    head = f"  {option.flag}"
    if kind.type is bool:
        head += " | " + re.sub(r"(.*\.|--)", r"\1no-", option.flag, count=1)
    facts = [describe(option.hint).removesuffix(", or none")]
    if option.default is REQUIRED:
        facts.append("required")
    elif option.default not in (None, (), {}):
        facts.append(f"default: {_as_typed(option.default)}")
    facts += [rule.expected for rule in kind.rules]
    facts += [mark.value for mark in kind.marks if mark is Mark.MAY_CHANGE]
    text = f"{' '.join(option.help.split())} ({'; '.join(facts)})"
    return [head, *_wrapped(text, columns, " " * 6)]


def _as_typed(value: Any) -> str:
    """Returns a default value as it would be typed."""
    if isinstance(value, dict):
        value = [part for pair in value.items() for part in pair]
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
