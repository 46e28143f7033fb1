"""The composition root: builds one process of the hub from its parts, starts it and stops it."""
