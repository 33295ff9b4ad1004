"""Speed and memory of gl_jax beside PyTorch: `python -m benchmarks`, or `make bench`.

Absolute seconds depend on the machine and on what else it does; ratios measured in turn
hardly do. Each contestant lives in a process of its own, so that its peak memory is its
own, and the driver (`contest.py`) lets them work one at a time, A B A B. Before anything
is timed, all of them compute the same thing from the same weights and inputs, and their
results are compared.
"""
