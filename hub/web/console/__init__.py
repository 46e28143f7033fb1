"""The console: server-rendered pages, one script, no build step, no external requests."""
