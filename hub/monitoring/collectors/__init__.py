"""What the exporter reads at each scrape: the ledger, the broker's queues, the files of the hub's processes.

Each source fails alone, by raising; what it does not know it leaves out. None keeps state between scrapes
that could be shown in place of the truth, so the gauges are right even when every worker is dead.
"""
