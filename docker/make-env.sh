#!/bin/sh
# Writes docker/.env with a new random value for every secret of docker/.env.example.
# An existing file is not changed: its passwords are stored in the volumes.
set -eu
umask 077
cd "$(dirname "$0")"

random() { # $1 bytes in letters and digits only: safe in URLs, and never parsed as an option
  head -c "$1" /dev/urandom | base64 | tr '+/' 'Zz' | tr -d '\n' # multiples of 3: no padding
}

set -C # `>` fails if the file exists
{
  while IFS= read -r line; do
    case "$line" in
      AIRFLOW_FERNET_KEY=) echo "$line$(random 32)" ;; # 32 bytes with padding, as Fernet requires
      AIRFLOW_ADMIN_PASSWORD=) echo "$line$(random 15)" ;; # typed by a person
      AIRFLOW_*_SECRET*=) echo "$line$(random 48)" ;; # signs with SHA-512, which needs 64 bytes
      *_PASSWORD= | *_ACCESS_KEY= | FER_ERASURE_SECRET=) echo "$line$(random 30)" ;;
      *) echo "$line" ;;
    esac
  done <.env.example
} >.env
echo "wrote $(pwd)/.env"
