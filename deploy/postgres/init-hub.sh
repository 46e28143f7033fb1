#!/bin/sh
# Creates the role hub, without superuser rights, and its database. Runs once in an empty PostgreSQL of the official image.
set -eu
password=$(cat "${HUB_DB_PASSWORD_FILE:-/run/secrets/hub_db_password}")
# The password is a psql variable read from standard input: it is in no command line and no statement log.
psql -v ON_ERROR_STOP=1 --no-psqlrc --quiet --username "${POSTGRES_USER:-postgres}" --dbname postgres <<SQL
\set password '$(printf %s "$password" | sed "s/[\\\\']/\\\\&/g")'
SET log_statement = 'none';
SET log_min_duration_statement = -1;
CREATE ROLE hub LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION CONNECTION LIMIT 150 PASSWORD :'password';
CREATE DATABASE hub OWNER hub;
REVOKE CONNECT, TEMPORARY ON DATABASE hub FROM PUBLIC;
SQL
