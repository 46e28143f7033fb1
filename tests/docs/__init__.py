"""The documentation is checked against the code."""
