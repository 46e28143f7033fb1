"""Metrics: names, hooks that count, files that hold the counts, collectors, exposition."""
