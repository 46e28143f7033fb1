"""Sources that the exporter reads at each scrape: ledger, broker queues, value files.

A source that cannot be read raises; the others are not affected. Sources cache no state between scrapes, so the gauges
are right when no worker runs.
"""
