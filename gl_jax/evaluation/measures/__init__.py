"""Measures of completed pictures: of each one, and of a set of them by its features."""
