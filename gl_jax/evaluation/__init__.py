"""Measurements of completed photographs: protocols, other methods, tables, reports."""
