"""Benchmarks: each contender in a process of its own, correctness before timing, ratios within one run.

`python -m bench` lists them; `python -m bench NAME... --json FILE` runs them.
"""
