"""Typed fields of dataclasses: their rules, and values from JSON or a command line.

A field's annotation holds its type, rules and marks:

    log_every: Annotated[int, at_least(1), Mark.MAY_CHANGE] = 50

The type selects the parser, the rules restrict the value, and the string below a field is
its help text. This file imports only the standard library.
"""

import ast
import dataclasses
import difflib
import enum
import functools
import inspect
import itertools
import math
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal


class UsageError(ValueError):
    """A user's mistake; the command line prints it in one line and exits with code 2."""


@dataclass(frozen=True)
class Rule:
    """A test of a field's value; `expected` ends the sentence "it must be"."""

    test: Callable[[Any], bool]
    expected: str


def at_least(bound: float) -> Rule:
    """Returns the rule that a number is `bound` or more."""
    return Rule(lambda value: bool(value >= bound), f"at least {bound}")


def above(bound: float) -> Rule:
    """Returns the rule that a number is more than `bound`."""
    return Rule(lambda value: bool(value > bound), f"above {bound}")


def within(interval: str) -> Rule:
    """Returns the rule that a number is in an interval such as "[0, 1)", without 1."""
    low, high = (float(end) for end in interval[1:-1].split(","))

    def test(value: float) -> bool:
        after_low = low <= value if interval[0] == "[" else low < value
        return after_low and (value <= high if interval[-1] == "]" else value < high)

    return Rule(test, f"in {interval}")


class Mark(enum.Enum):
    """Marks a field whose value may differ between lives or hosts of a run."""

    MAY_CHANGE = "may change on resume"
    PER_HOST = "may differ between hosts"


@dataclass(frozen=True)
class Kind:
    """The parts of a field's type; examples for `Annotated[tuple[int, int] | None, r]`."""

    type: Any
    """tuple[int, int]"""
    origin: Any
    """tuple; None for a plain type"""
    arguments: tuple[Any, ...]
    """(int, int)"""
    optional: bool
    """True, because the value may be None"""
    rules: tuple[Rule, ...]
    marks: tuple[Mark, ...]

    @property
    def most_words(self) -> float:
        """Largest number of words of a value on the command line."""
        if self.origin is dict or self.arguments[1:] == (...,):
            return math.inf
        return len(self.arguments) if self.origin is tuple else 1


def kind_of(hint: Any) -> Kind:
    """Splits a field's type into its parts."""
    optional, notes = False, []
    while True:
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin is Annotated:
            hint, *more = arguments
            notes += more
        elif origin in (typing.Union, types.UnionType):
            (hint,) = (a for a in arguments if a is not types.NoneType)
            optional = True
        else:
            rules = tuple(note for note in notes if isinstance(note, Rule))
            marks = tuple(note for note in notes if isinstance(note, Mark))
            return Kind(hint, origin, arguments, optional, rules, marks)


def hints(cls: type) -> dict[str, Any]:
    """Returns the type of every field of a dataclass, with its annotations."""
    all_hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: all_hints[field.name] for field in dataclasses.fields(cls)}


def field_names(cls: type, prefix: str = "") -> dict[str, Any]:
    """Returns the type of every field of a tree of dataclasses by its dotted name."""
    names: dict[str, Any] = {}
    for name, hint in hints(cls).items():
        if dataclasses.is_dataclass(hint):
            names |= field_names(typing.cast(type, hint), f"{prefix}{name}.")
        else:
            names[prefix + name] = hint
    return names


def marked(cls: type, mark: Mark) -> list[str]:
    """Returns the dotted names of the fields of a tree that carry the mark."""
    names = field_names(cls)
    return [name for name, hint in names.items() if mark in kind_of(hint).marks]


@functools.cache
def _source(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(sys.modules[module]))


def field_texts(cls: type) -> dict[str, str]:
    """Returns the string below each field of a dataclass, read from its source."""
    texts: dict[str, str] = {}
    for node in _source(cls.__module__).body:
        if not isinstance(node, ast.ClassDef) or node.name != cls.__name__:
            continue
        for field, below in itertools.pairwise(node.body):
            match field, below:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    texts[name] = inspect.cleandoc(text)
    return texts


# --- rules


class Section:
    """A dataclass that checks its fields' rules when it is created."""

    prefix: ClassVar[str]
    """Beginning of its fields' names in messages."""

    def __init_subclass__(cls, prefix: str = "") -> None:
        """Sets the prefix: `class ModelConfig(Section, prefix="model.")`."""
        cls.prefix = prefix

    def __post_init__(self) -> None:
        """Raises UsageError if a field breaks its rule."""
        require_rules(self, self.prefix)


def require(rule: bool, name: str, value: object, expected: str) -> None:
    """Raises the UsageError "NAME (=VALUE) must be EXPECTED." unless the rule holds."""
    if not rule:
        raise UsageError(f"{name} (={value!r}) must be {expected}.")


def require_rules(tree: object, prefix: str) -> None:
    """Raises UsageError if a field of this dataclass breaks one of its rules."""
    for name, hint in hints(type(tree)).items():
        value, kind = getattr(tree, name), kind_of(hint)
        if value is None and kind.optional:
            continue
        if kind.origin is Literal and value not in kind.arguments:
            raise UsageError(_misfit(hint, value, prefix + name))
        for rule in kind.rules:
            require(rule.test(value), prefix + name, value, rule.expected)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns a sentence that names the nearest known word, or "" if none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def describe(hint: Any) -> str:
    """Describes the values of a field of this type in words."""
    kind = kind_of(hint)
    words = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        Path: "a path",
    }
    if kind.origin is Literal:
        text = f"one of {', '.join(kind.arguments)}"
    elif kind.origin is tuple and kind.arguments[1:] == (...,):
        text = "whole numbers" if kind.arguments[0] is int else "one or more words"
    elif kind.origin is tuple:
        numbers = "whole numbers" if kind.arguments[0] is int else "numbers"
        text = f"{len(kind.arguments)} {numbers}"
    else:
        text = words.get(kind.type, "names with numbers")
    return f"{text}, or none" if kind.optional else text


# --- values from JSON


def build(cls: type, values: Any, path: str) -> Any:
    """Builds a dataclass from a JSON object; `path` is the names' prefix in messages.

    Raises UsageError for an unknown field or a value of another type.
    """
    if not isinstance(values, dict):
        raise UsageError(
            f"{path or 'the configuration'} (={values!r}) must be an object."
        )
    known = hints(cls)
    fields = {}
    for name, value in values.items():
        if name not in known:
            raise UsageError(f"unknown field {path}{name}.{did_you_mean(name, known)}")
        fields[name] = from_json(known[name], value, f"{path}{name}")
    try:
        return cls(**fields)
    except UsageError as error:
        # The two optimizers share a class, whose prefix is not their path.
        prefix, message = getattr(cls, "prefix", ""), str(error)
        if prefix and message.startswith(prefix):
            message = path + message.removeprefix(prefix)
        raise UsageError(message) from None


def from_json(hint: Any, value: Any, name: str) -> Any:
    """Converts a JSON value to the type `hint`: a list to a tuple, 1 to 1.0.

    Raises UsageError, with `name` in its message, if the value does not fit.
    """
    kind = kind_of(hint)
    if value is None and kind.optional:
        return None
    if dataclasses.is_dataclass(kind.type):
        return build(typing.cast(type, kind.type), value, f"{name}.")
    if kind.origin is Literal:
        if value in kind.arguments:
            return value
    elif kind.origin is tuple and isinstance(value, list | tuple):
        items = kind.arguments
        if items[1:] == (...,):
            items = items[:1] * len(value)
        if len(items) == len(value):
            return tuple(
                from_json(item, part, name)
                for item, part in zip(items, value, strict=True)
            )
    elif kind.origin is dict and isinstance(value, dict):
        item = kind.arguments[1]
        return {key: from_json(item, v, f"{name}.{key}") for key, v in value.items()}
    elif kind.type is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    elif kind.type is Path and isinstance(value, str):
        return Path(value)
    elif type(value) is kind.type is not float:
        return value
    raise UsageError(_misfit(hint, value, name))


def _misfit(hint: Any, value: Any, name: str) -> str:
    """Returns the message for a value that does not have the field's type."""
    words = kind_of(hint).arguments if kind_of(hint).origin is Literal else ()
    near = did_you_mean(value, words) if isinstance(value, str) else ""
    return f"{name} (={value!r}) must be {describe(hint)}.{near}"


# --- values from words


def from_words(hint: Any, words: Sequence[str], name: str) -> Any:
    """Converts the words of a command line to a value of this type.

    "none" gives None if that is allowed; a switch needs no word. Raises UsageError if
    the words do not fit, or are too many or too few.
    """
    kind = kind_of(hint)
    if kind.arguments == (int, ...):
        words = " ".join(words).replace(",", " ").split()
    if kind.optional and [word.lower() for word in words] == ["none"]:
        return None
    if kind.type is bool and not words:
        return True
    if kind.origin is dict:
        if len(words) % 2:
            raise UsageError(f"{name} takes pairs of a name and a number: b1 0.5.")
        pairs = zip(words[::2], words[1::2], strict=True)
        return from_json(hint, {key: _number(word) for key, word in pairs}, name)
    if len(words) != kind.most_words and not (words and kind.most_words == math.inf):
        given = f"not {len(words)}: {' '.join(words)}" if words else "and got none"
        raise UsageError(f"{name} takes {describe(hint)}, {given}.")
    of_text = kind.type in (str, Path) or kind.origin is Literal
    if of_text or {str, Path} & {*kind.arguments}:
        values: list[Any] = list(words)
    else:
        values = [_number(word) for word in words]
    return from_json(hint, values if kind.origin is tuple else values[0], name)


def _number(word: str) -> bool | int | float | str:
    """Converts true, false and numbers; returns other words unchanged."""
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    for number in (int, float):
        try:
            return number(word)
        except ValueError:
            continue
    return word


# --- trees


def values_by_name(tree: Any) -> dict[str, Any]:
    """Returns every value of a tree by its dotted name, with JSON's types."""
    return _flat(dataclasses.asdict(tree))


def differences(ours: Any, theirs: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yields every field in which two trees differ as (dotted name, ours, theirs)."""
    mine, other = values_by_name(ours), values_by_name(theirs)
    for name in mine | other:
        if mine.get(name) != other.get(name):
            yield name, mine.get(name), other.get(name)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat
