"""Constants of colour."""

import numpy as np

LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of R, G and B in the luma of ITU-R BT.601."""
