#!/bin/sh
# Prepares the stack before any other Airflow service starts: tables of Airflow and of fer-batch, its
# roles, the pool that limits scoring, the password of the UI. Every step is safe to repeat.
set -eu
umask 077

airflow db migrate
fer-batch db upgrade
fer-batch db roles
fer-batch db grant fer_nightly --role writer
fer-batch db grant fer_maintenance --role retainer
airflow pools set fer_scoring "${FER_POOL_SLOTS:?}" "Concurrent scoring processes, over all workers"

python - <<'PYTHON'
import json
import os
import pathlib

passwords = pathlib.Path(os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
passwords.write_text(json.dumps({"admin": os.environ["AIRFLOW_ADMIN_PASSWORD"]}) + "\n")
PYTHON
