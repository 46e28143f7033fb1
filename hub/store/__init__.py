"""PostgreSQL: all SQL of the hub's database. One class per concern, SQL beside its function."""
