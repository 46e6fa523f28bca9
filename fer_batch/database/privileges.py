"""The privileges of the roles on the schema: granted as `sql/roles/roles.sql` lists them.

`roles` creates the roles and calls this with the rights of an administrator; an upgrade calls it
for new tables and views. Which role a login has is left to roles.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa

from fer_batch import resources
from fer_batch.database.statements import load_statements
from fer_batch.errors import DatabaseError
from fer_batch.log import get_logger

log = get_logger(__name__)

OWNER = "fer_owner"
WRITER = "fer_writer"

ADMINISTRATOR_HINT = (
    "Run `fer-batch db roles` and `db grant` as the owner of the database who may create roles, or "
    "as a superuser. For roles that another administrator created, you need their ADMIN OPTION"
)
LOGIN_HINT = (
    "Run `fer-batch db roles`, create a login, make it a member with "
    "`fer-batch db grant LOGIN --role writer`, and set FER_DATABASE_URL to it"
)
_STATEMENTS = load_statements(__file__)


def load_list(connection: sa.Connection, name: str) -> list[dict[str, Any]]:
    """A list of `sql/roles/roles.sql`: roles, memberships, privileges or policies."""
    return [dict(row) for row in connection.execute(_load_lists()[name]).mappings()]


def find_owner(connection: sa.Connection) -> str | None:
    """The role that owns the schema; None if there is no schema."""
    owner: str | None = connection.execute(_STATEMENTS["find_owner"]).scalar_one_or_none()
    return owner


def apply_if_owned(connection: sa.Connection) -> None:
    """Give the objects of the schema their privileges and policies, if it belongs to fer_owner.

    For the owner, in the transaction of an upgrade. Privileges on the database are left to
    `roles.repair`.
    """
    if find_owner(connection) == OWNER:
        changes = apply_policies(connection)
        changes += apply(connection, lambda kind: kind != "DATABASE")
        log.info("privileges granted and revoked", statements=len(changes))


def apply(connection: sa.Connection, is_selected: Callable[[str], bool]) -> list[str]:
    """Grant and revoke until nothing is left to do; returns the statements.

    `is_selected` chooses by the kind of an object. A revocation may take a wanted grant along,
    which is then repeated. Raises DatabaseError if a statement has no effect: PostgreSQL only
    warns if a role may not grant.
    """
    params = {"privileges": json.dumps(load_list(connection, "privileges"))}
    changes: list[str] = []
    left: list[str] = []
    for _ in range(3):
        rows = connection.execute(_STATEMENTS["compose_privileges"], params).all()
        left = [row.statement for row in rows if is_selected(row.kind)]
        if not left:
            return changes
        changes += execute_all(connection, left)
    raise DatabaseError(f"no effect: {'; '.join(left)}", ADMINISTRATOR_HINT)


def apply_policies(connection: sa.Connection) -> list[str]:
    """Make row-level security as listed, for the owner of the schema; returns the statements."""
    params = {"policies": json.dumps(load_list(connection, "policies"))}
    composed = connection.execute(_STATEMENTS["compose_policies"], params).scalars()
    return execute_all(connection, composed.all())


def list_missing(connection: sa.Connection) -> list[str]:
    """What the login lacks for the nightly job, each as a phrase."""
    privileges = json.dumps(load_list(connection, "privileges"))
    params = {"privileges": privileges, "role": WRITER}
    return list(connection.execute(_STATEMENTS["list_missing"], params).scalars())


def list_excess(connection: sa.Connection) -> list[str]:
    """What the login may do beyond the nightly job, each as a phrase."""
    return list(connection.execute(_STATEMENTS["list_excess"]).scalars())


def execute_all(connection: sa.Connection, statements: Sequence[str]) -> list[str]:
    """Run statements in which the database or psycopg has quoted all names; returns them."""
    for statement in statements:
        connection.execution_options(no_parameters=True).exec_driver_sql(statement)
    return list(statements)


@cache
def _load_lists() -> dict[str, sa.TextClause]:
    return dict(load_statements(str(resources.find_sql_dir() / "roles" / "roles.sql")))
