#!/bin/sh
# Creates the secret files of compose.yaml in a folder (default: secrets/ beside this script). Keeps existing ones.
# Only the owner can enter the folder; the files in it are readable, since containers read them as another user.
set -eu
folder=${1:-$(dirname "$0")/secrets}
db_host=${HUB_DB_HOST:-postgres:5432}
broker_host=${HUB_BROKER_HOST:-rabbitmq:5672}
umask 077
mkdir -p "$folder"
chmod 700 "$folder"

random() { head -c 24 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n='; }
fernet() { head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n'; }
make() { # NAME: writes standard input to the file, unless it exists
    if [ ! -s "$folder/$1" ]; then
        cat >"$folder/$1"
        echo "made $folder/$1"
    fi
    chmod 444 "$folder/$1"
}

random | make postgres_superuser_password
random | make hub_db_password
random | make rabbitmq_hub_password
random | make rabbitmq_monitor_password
random | make grafana_admin_password
fernet | make secret_keys
# URLs contain passwords, so they are written each time: a changed password needs one command.
rm -f "$folder/database_url" "$folder/broker_url" "$folder/broker_monitor_url"
printf 'postgresql://hub:%s@%s/hub' "$(cat "$folder/hub_db_password")" "$db_host" | make database_url
printf 'amqp://hub:%s@%s/hub' "$(cat "$folder/rabbitmq_hub_password")" "$broker_host" | make broker_url
printf 'amqp://hub-monitor:%s@%s/hub' "$(cat "$folder/rabbitmq_monitor_password")" "$broker_host" |
    make broker_monitor_url
echo "Back up $folder/secret_keys: without it the stored credentials of services cannot be read."
