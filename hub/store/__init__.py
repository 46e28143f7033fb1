"""PostgreSQL: the only package that imports psycopg. One class per concern, SQL beside its function."""
