"""Event sources that the hub reads by itself: the core of `moodle_log`, free of drivers and of the ledger."""
