"""Figures: curves over the steps, and sheets of photographs.

Only this package imports matplotlib, inside the functions that draw.
"""
