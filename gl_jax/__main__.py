"""`python -m gl_jax` is `gl-jax`."""

import sys

from gl_jax import huge_pages


def start() -> int:
    """Runs the command line with huge pages, and returns its exit code."""
    huge_pages.begin_again()
    from gl_jax.cli import main

    return main()


if __name__ == "__main__":
    sys.exit(start())
