"""Figures, each a ratio in one run; see docs/benchmarks.md."""
