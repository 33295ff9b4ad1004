"""From a photograph and a mask to a completed photograph."""
