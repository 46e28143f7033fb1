"""Pure functions: rule matching, templates, JSON paths, circuit transitions, the retry policy."""
