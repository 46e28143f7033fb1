"""Scheduled tasks: cron expressions, the tick, housekeeping."""
