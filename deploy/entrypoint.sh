#!/bin/sh
# Secrets in files: for every HUB_<NAME>_FILE, exports HUB_<NAME> with the content of the file, then executes the command.
# So no secret is in an image, a compose file, a pod spec or a unit.
set -eu

for name in $(env | sed -n 's/^\(HUB_[A-Z0-9_]*\)_FILE=.*/\1/p'); do
    eval "file=\${${name}_FILE} given=\${${name}:-}"
    if [ -n "$given" ]; then
        echo "entrypoint: ${name} and ${name}_FILE are both set; keep one" >&2
        exit 2
    fi
    if [ ! -r "$file" ]; then
        echo "entrypoint: ${name}_FILE names a file that cannot be read: $file" >&2
        exit 2
    fi
    value=$(cat "$file") # the shell drops the newline at the end
    if [ -z "$value" ]; then
        echo "entrypoint: ${name}_FILE names an empty file: $file" >&2
        exit 2
    fi
    export "$name=$value"
    unset "${name}_FILE"
done

exec "$@"
