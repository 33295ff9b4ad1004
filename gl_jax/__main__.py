"""`python -m gl_jax` is `gl-jax`."""

import sys

from gl_jax.cli import main

sys.exit(main())
