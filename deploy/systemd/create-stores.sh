#!/bin/sh
# Creates what the hub needs in the PostgreSQL and the RabbitMQ of this machine: role, database, virtual host, users,
# permissions, policy. Run as root: create-stores.sh [SECRETS] (default /etc/hub/secrets, from make-secrets.sh).
# Safe to run again: existing ones are kept and get the passwords of the secret files. ONLY=postgres or ONLY=rabbitmq
# does one of the two, for servers on different machines.
set -eu
secrets=${1:-/etc/hub/secrets}
here=$(cd "$(dirname "$0")/.." && pwd)
for name in hub_db_password rabbitmq_hub_password rabbitmq_monitor_password; do
    if [ ! -r "$secrets/$name" ]; then
        echo "create-stores.sh: cannot read $secrets/$name: run make-secrets.sh first, and this script as root" >&2
        exit 2
    fi
done

if [ "${ONLY:-postgres}" = postgres ]; then
    # `-` reads the password from standard input: user postgres may read neither the file nor its descriptor.
    (cd / && HUB_DB_PASSWORD_FILE=- runuser -u postgres -- sh -c "$(cat "$here/postgres/init-hub.sh")") \
        <"$secrets/hub_db_password"
    echo "PostgreSQL: role hub, database hub"
fi

if [ "${ONLY:-rabbitmq}" = rabbitmq ]; then
    rendered=$(mktemp) # mode 0600
    trap 'rm -f "$rendered"' EXIT
    HUB_PASSWORD_FILE=$secrets/rabbitmq_hub_password MONITOR_PASSWORD_FILE=$secrets/rabbitmq_monitor_password \
        DEFINITIONS=$here/rabbitmq/definitions.json RENDERED=$rendered sh "$here/rabbitmq/start.sh" \
        rabbitmqctl --quiet import_definitions "$rendered"
    echo "RabbitMQ: virtual host hub, users hub and hub-monitor"
fi
