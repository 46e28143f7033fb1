"""Metrics, alerts and dashboards, judged by real Prometheus programs."""
