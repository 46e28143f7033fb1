"""Metrics: catalogue, hooks that count, value files, collectors, exposition."""
