"""HTTP/1.1: a `requests` adapter with pooled, guarded connections and one deadline per exchange."""
