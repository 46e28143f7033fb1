#!/bin/sh
# Creates the role hub, without superuser rights, and its database, or sets the password of the existing role. The
# official image runs it once, in an empty PostgreSQL; systemd/create-stores.sh runs it elsewhere.
set -eu
password=$(cat "${HUB_DB_PASSWORD_FILE:-/run/secrets/hub_db_password}")
# The password is a psql variable read from standard input: it is in no command line and no statement log.
psql -v ON_ERROR_STOP=1 --no-psqlrc --quiet --username "${POSTGRES_USER:-postgres}" --dbname postgres <<SQL
\set password '$(printf %s "$password" | sed "s/[\\\\']/\\\\&/g")'
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SELECT 'CREATE ROLE hub ' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'hub') \gexec
ALTER ROLE hub LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION CONNECTION LIMIT 150 PASSWORD :'password';
SELECT 'CREATE DATABASE hub OWNER hub' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'hub') \gexec
REVOKE CONNECT, TEMPORARY ON DATABASE hub FROM PUBLIC;
SQL
