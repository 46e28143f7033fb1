"""The application layer: actions of people, called by the CLI, the HTTP API and the console."""
