"""A randomised, seeded history checker: load, faults, healing, and then every promise of the hub is checked."""
