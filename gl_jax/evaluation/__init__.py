"""Measurements of completed photographs: `evaluate`, `compare` and `report`."""

from typing import Literal

Protocol = Literal["own", "mmediting"]
"""How a photograph becomes a square with a hole; see `protocol`."""
