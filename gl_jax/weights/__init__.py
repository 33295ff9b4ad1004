"""Weights files: the native format, and restricted readers of other projects' files."""
