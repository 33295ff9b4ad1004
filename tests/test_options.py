"""Words of a command line become arguments of a function."""

from pathlib import Path
from typing import Any, Literal

import pytest

from gl_jax import options
from gl_jax.fields import UsageError


class Nothing:
    """No parameter has this type."""


def verb(
    source: Path,
    /,
    *others: Path,
    size: tuple[int, int] = (1, 2),
    count: int | None = None,
    names: tuple[str, ...] = (),
    seeds: tuple[int, ...] = (),
    dry_run: bool = False,
    kind: Literal["plain", "round"] = "plain",
) -> None:
    """Does nothing.

    Args:
        source: The first file.
        others: Further files.
        size: Two sides,
            in pixels.
    """


def read(words: str) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of `verb` for words that spaces separate."""
    own = options.of_function(verb, without=Nothing)
    return options.arguments(own, options.split(own, words.split()), "gl-jax verb")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("a b --size 3 4", {"size": (3, 4)}),
        ("a --size=3 4 b", {"size": (3, 4)}),
        ("--count 3 a b", {"count": 3}),
        ("--count=none a b", {"count": None}),
        ("a --dry-run b", {"dry_run": True}),
        ("a --dry_run false b", {"dry_run": False}),
        ("--no-dry-run a b", {"dry_run": False}),
        ("a b --names x y --names=z", {"names": ("x", "y", "z")}),
        ("a b --seeds 0,1 2", {"seeds": (0, 1, 2)}),
        ("a b --count 1 --count 2", {"count": 2}),
        ("a b --kind round", {"kind": "round"}),
    ],
)
def test_words_and_options_stand_in_any_order(words, named):
    assert read(words) == ([Path("a"), Path("b")], named)


def test_a_path_may_be_a_number():
    assert read("1 2024 007") == ([Path("1"), Path("2024"), Path("007")], {})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "gl-jax verb needs SOURCE: The first file."),
        ("a b --size 3", "--size takes 2 whole numbers, not 1: 3."),
        ("a b --count 2.5", "--count (=2.5) must be a whole number, or none."),
        ("a b --kind ruond", "must be one of plain, round. Did you mean 'round'?"),
        ("a b --siez 3 4", "unknown option --siez. Did you mean --size?"),
        ("a b --no-count", "unknown option --no-count. Did you mean --count?"),
        ("a b --no-dry-run=1", "--no-dry-run takes no value."),
        ("a b --names", "--names takes one or more words, and got none."),
    ],
)
def test_words_that_do_not_fit_are_refused(words, message):
    with pytest.raises(UsageError) as refusal:
        read(words)
    assert message in str(refusal.value)


def test_the_help_shows_words_options_values_and_defaults():
    own = options.of_function(verb, without=Nothing)
    text = options.help_text("gl-jax verb", verb.__doc__ or "", own)
    assert text.startswith("usage: gl-jax verb SOURCE OTHERS... ...\n\nDoes nothing.\n")
    assert (
        "  --size\n      Two sides, in pixels. (2 whole numbers; default: 1 2)" in text
    )
    assert "  --dry-run | --no-dry-run\n" in text
