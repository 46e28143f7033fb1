#!/bin/sh
# Renders definitions.json with the passwords of the secret files, then starts RabbitMQ as its image would.
# HUB_PASSWORD_FILE, MONITOR_PASSWORD_FILE: secret files. DEFINITIONS, RENDERED: template and result (on a tmpfs).
set -eu
: "${DEFINITIONS:=/etc/hub-rabbitmq/definitions.json}" "${RENDERED:=/run/hub-rabbitmq/definitions.json}"

secret() {
    value=$(cat "$1")
    case $value in
    '' | *[!A-Za-z0-9_-]*)
        echo "start.sh: $1 is empty or has characters other than A-Z a-z 0-9 _ -" >&2
        exit 2
        ;;
    esac
    printf %s "$value"
}

hub=$(secret "$HUB_PASSWORD_FILE")
monitor=$(secret "$MONITOR_PASSWORD_FILE")
umask 077
# The script goes to sed by standard input: other users can read command lines.
sed -f - "$DEFINITIONS" >"$RENDERED" <<SED
s/@HUB_PASSWORD@/$hub/
s/@MONITOR_PASSWORD@/$monitor/
SED
if [ "$(id -u)" = 0 ]; then
    chown rabbitmq "$RENDERED"
fi
unset hub monitor
exec "$@"
