"""User studies, in which people tell photographs from completions: `gl-jax study`."""

from typing import Literal

Kind = Literal["single", "pair"]
"""One picture (real or completed?), as in the paper, or two (which is the photograph?)."""
