"""Weights as files: one native format, and restricted readers of other people's."""
