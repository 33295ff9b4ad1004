"""How good completed photographs are: metrics, baselines, comparisons, and their figures."""
