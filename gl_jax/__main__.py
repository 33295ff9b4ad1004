"""`python -m gl_jax` is `gl-jax`."""

import sys

from gl_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
