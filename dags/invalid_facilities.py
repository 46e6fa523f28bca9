"""Shows facilities that have no DAG in Airflow's list of import errors.

This file defines no DAG. It fails while the registry has a facility that belongs to no scheduled
DAG, for example because its time zone is misspelled. The error is in a file of its own because
Airflow schedules no DAG of a file that has an import error. If the registry as a whole cannot be
read, satisfaction_nightly.py reports it, and this file reports nothing.
"""

from __future__ import annotations

import fer_registry


def check_registry() -> None:
    """Raise RegistryError that names every facility without a DAG, and why."""
    try:
        document = fer_registry.read_registry()
    except fer_registry.RegistryError:
        return
    if problems := fer_registry.find_problems(document):
        raise fer_registry.RegistryError(
            f"{fer_registry.find_registry_file()}: {'; '.join(problems)}. The other facilities are "
            "processed; `fer-batch check` reports every fault"
        )


check_registry()
