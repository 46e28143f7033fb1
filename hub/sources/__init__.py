"""Event sources: reads Moodle's log store. Rows become events; `hub.inbound` writes them to the ledger."""
