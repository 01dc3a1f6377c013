"""Benchmarks: each scenario family in a file, with its peers side by side in one run. `python -m benchmarks --help`."""
