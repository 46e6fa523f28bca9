#!/bin/sh
# Writes docker/.env with a new random value for every secret of docker/.env.example.
# An existing file gets the variables that it lacks, as after an upgrade, and the secrets that are
# empty; all others stay as they are, because the volumes were created with these passwords.
set -eu
umask 077
cd "$(dirname "$0")"

random() { # $1 bytes in letters and digits only: safe in URLs, and never parsed as an option
  head -c "$1" /dev/urandom | base64 | tr '+/' 'Zz' | tr -d '\n' # multiples of 3: no padding
}

has_line() { # $1 name, $2 pattern of the value
  grep -Eq "^[[:space:]]*(export[[:space:]]+)?$1[[:space:]]*=$2" .env
}

fill() { # lines of the example, with a value for each secret
  while IFS= read -r line; do
    case "$line" in
      AIRFLOW_FERNET_KEY=) echo "$line$(random 32)" ;; # 32 bytes with padding, as Fernet requires
      AIRFLOW_ADMIN_PASSWORD=) echo "$line$(random 15)" ;; # typed by a person
      AIRFLOW_*_SECRET*=) echo "$line$(random 48)" ;; # signs with SHA-512, which needs 64 bytes
      *_PASSWORD= | *_ACCESS_KEY= | FER_ERASURE_SECRET=) echo "$line$(random 30)" ;;
      *) echo "$line" ;;
    esac
  done
}

if [ ! -e .env ]; then
  set -C # `>` fails if the file exists
  fill <.env.example >.env
  echo "wrote $(pwd)/.env"
  exit
fi

added=$(grep -E '^[A-Z]' .env.example | fill | while IFS= read -r line; do
  name=${line%%=*}
  # A secret is empty in the example, and compose refuses an empty one.
  pattern=
  grep -Fxq "$line" .env.example || pattern='[[:space:]]*[^[:space:]]'
  has_line "$name" "$pattern" || echo "$line"
done)
if [ -z "$added" ]; then
  echo "$(pwd)/.env lacks nothing"
  exit
fi
[ -z "$(tail -c 1 .env)" ] || echo >>.env # the last line had no end
echo "$added" >>.env
echo "added to $(pwd)/.env:"
echo "$added" | sed 's/=.*//; s/^/  /'
echo "A new password of the database needs its login: docs/deploy.md, Upgrade"
