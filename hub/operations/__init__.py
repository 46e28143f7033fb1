"""What a person can do, once: the CLI, the HTTP API and the console call the same functions."""
