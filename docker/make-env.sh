#!/bin/sh
# Writes docker/.env with a new random value for every secret of docker/.env.example.
# An existing file is left alone: the volumes hold passwords that belong to it.
set -eu
umask 077
cd "$(dirname "$0")"

random() { # $1 bytes, in the alphabet that is safe in URLs; multiples of 3 need no padding
  head -c "$1" /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n'
}

set -C # `>` refuses a file that exists
{
  while IFS= read -r line; do
    case "$line" in
      AIRFLOW_FERNET_KEY=) echo "$line$(random 32)" ;; # 32 bytes with their padding, by definition
      AIRFLOW_ADMIN_PASSWORD=) echo "$line$(random 15)" ;; # a person types it
      AIRFLOW_*_SECRET*=) echo "$line$(random 48)" ;; # signs with SHA-512, which wants 64 bytes
      [A-Z]*=) echo "$line$(random 30)" ;;
      *) echo "$line" ;;
    esac
  done <.env.example
} >.env
echo "wrote $(pwd)/.env"
