"""Processes: `up`, `web`, `worker`, `scheduler`, the exporter, supervision, logging set-up."""
