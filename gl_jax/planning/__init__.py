"""Plans of runs on absent chips: the memory needed, and the least time."""
