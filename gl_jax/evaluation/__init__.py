"""Measurements of completed photographs: `evaluate`, `compare` and `report`."""

from typing import Literal

Protocol = Literal["own", "mmediting", "lama", "mat", "yeh"]
"""The names of the protocols; see `protocol`."""
