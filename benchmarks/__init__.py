"""Speed and memory of gl_jax beside PyTorch: `python -m benchmarks`, or `make bench`.

Absolute seconds depend on the machine and its load; ratios measured in turn depend on
them far less. Every library runs in a process of its own, so its peak memory is its own,
and the driver (`driver.py`) lets one work at a time, A B A B. Before anything is timed,
all of them compute the same thing from the same weights and inputs, and their results
are compared.
"""
