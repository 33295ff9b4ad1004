"""User studies: people look at pictures and say which are photographs: `gl-jax study`."""

from typing import Literal

Kind = Literal["single", "pair"]
"""One picture, "real or completed?", as in the paper; or two, "which is the photograph?"."""
