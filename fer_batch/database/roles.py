"""The roles of the database: creates and repairs them, and says which login has which role.

`sql/roles/roles.sql` lists the roles, their memberships and their privileges. Roles belong to the
whole server, so that its databases share them; privileges and ownership belong to one database.
Passwords of logins are left to whoever creates them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import sqlalchemy as sa
from psycopg import sql

from fer_batch.database import connections, privileges, schema
from fer_batch.database.privileges import OWNER
from fer_batch.database.statements import load_statements
from fer_batch.errors import ConfigurationError, DatabaseError, DatabaseUnavailableError, FerError
from fer_batch.settings import Settings

_STATEMENTS = load_statements(__file__)
_CONCURRENT = ("40", "23505", "42710", "XX000")
"""SQLSTATEs of a change of roles that meets one by another database of the server."""
_INSUFFICIENT_PRIVILEGE = "42501"
_ATTEMPTS = 20
_PAUSE_S = 0.1
_OBJECTS_AT_ONCE = 100
"""A change of owner locks a table with its indexes, and the server's lock table is limited."""


class _Membership(NamedTuple):
    member: str
    role_name: str
    may_inherit: bool
    may_set: bool


def repair(source: Settings | str) -> list[str]:
    """Make roles, ownership and privileges those of `sql/roles/roles.sql`; returns what it changed.

    The changes are SQL statements, in their order; none if everything was right. It may be
    interrupted and repeated, and several may run concurrently. The login becomes a member of
    fer_owner, as does the former owner of the schema, so that both can still upgrade it. Raises
    DatabaseError if the login lacks the rights or the schema is not at this version's migration,
    LockTimeoutError if others use the tables.
    """
    with _connect_as_administrator(source) as target:
        changes = _repeat_if_concurrent(lambda: _repair_roles(target))
        while done := schema.retry_lock_timeouts(target, lambda: _repair_owners(target)):
            changes += done
        return changes + schema.retry_lock_timeouts(target, lambda: _repair_privileges(target))


@contextmanager
def _connect_as_administrator(source: Settings | str) -> Iterator[sa.Engine]:
    """An engine for the block; a missing right gets the hint who has it."""
    try:
        with schema.open_engine(source) as target:
            yield target
    except DatabaseError as error:
        if _get_sqlstate(error) != _INSUFFICIENT_PRIVILEGE:
            raise
        raise DatabaseError(str(error.args[0]), privileges.ADMINISTRATOR_HINT) from error


def _get_sqlstate(error: FerError) -> str:
    return str(getattr(getattr(error.__cause__, "orig", None), "sqlstate", ""))


def _repeat_if_concurrent(change: Callable[[], list[str]]) -> list[str]:
    """Repeat a change of roles that another database of the server makes at the same time."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return change()
        except (DatabaseError, DatabaseUnavailableError) as error:
            if not _get_sqlstate(error).startswith(_CONCURRENT):
                raise
            time.sleep(_PAUSE_S)
    return change()


def _repair_roles(target: sa.Engine) -> list[str]:
    """Create the roles, and correct their attributes and memberships."""
    with connections.transaction(target) as connection:
        connections.lock(connection, "upgrade")
        roles = privileges.load_list(connection, "roles")
        params = {"roles": json.dumps(roles)}
        composed = connection.execute(_STATEMENTS["compose_roles"], params).scalars().all()
        changes = privileges.execute_all(connection, composed)
        wanted = [_Membership(**row) for row in privileges.load_list(connection, "memberships")]
        members = [role["role_name"] for role in roles]
        changes += _revoke_memberships(connection, members, wanted)
        login = connection.execute(sa.text("SELECT current_user")).scalar_one()
        former_owner = privileges.find_owner(connection)
        wanted += [
            _Membership(role, OWNER, may_inherit=True, may_set=True)
            for role in sorted({login, former_owner} - {OWNER, None})
            if not connection.execute(_STATEMENTS["is_superuser"], {"role": role}).scalar_one()
        ]
        for membership in wanted:
            changes += _ensure_member(connection, membership)
    return changes


def _revoke_memberships(
    connection: sa.Connection, members: Sequence[str], wanted: Sequence[_Membership]
) -> list[str]:
    """Revoke the memberships of the roles that are not wanted, or have other options."""
    changes: list[str] = []
    for row in _list_memberships(connection, members):
        is_wanted = any(_is_equal(row, membership) for membership in wanted)
        if not is_wanted or row["may_grant"]:
            changes += _revoke_membership(connection, row)
    return changes


def _ensure_member(connection: sa.Connection, membership: _Membership) -> list[str]:
    rows = _list_memberships(connection, [membership.member])
    if any(_is_equal(row, membership) for row in rows):
        return []
    options: sql.Composable = sql.SQL("")
    if _has_membership_options(connection):
        options = sql.SQL(" WITH INHERIT {}, SET {}").format(
            sql.SQL("TRUE" if membership.may_inherit else "FALSE"),
            sql.SQL("TRUE" if membership.may_set else "FALSE"),
        )
    statement = sql.SQL("GRANT {} TO {}{}").format(
        sql.Identifier(membership.role_name), sql.Identifier(membership.member), options
    )
    return privileges.execute_all(connection, [statement.as_string()])


def _is_equal(row: Mapping[Any, Any], membership: _Membership) -> bool:
    # Before PostgreSQL 16 every member may SET ROLE.
    may_set = row["may_set"] if row["has_options"] else membership.may_set
    is_same = (row["member"], row["role_name"]) == (membership.member, membership.role_name)
    return is_same and (row["may_inherit"], may_set) == membership[2:]


def _list_memberships(
    connection: sa.Connection, members: Sequence[str]
) -> Sequence[Mapping[Any, Any]]:
    rows = connection.execute(_STATEMENTS["list_memberships"], {"members": list(members)})
    return rows.mappings().all()


def _revoke_membership(connection: sa.Connection, row: Mapping[Any, Any]) -> list[str]:
    by: sql.Composable = sql.SQL("")
    if row["has_options"]:  # several roles may each have granted it
        by = sql.SQL(" GRANTED BY {}").format(sql.Identifier(row["grantor"]))
    statement = sql.SQL("REVOKE {} FROM {}{} CASCADE").format(
        sql.Identifier(row["role_name"]), sql.Identifier(row["member"]), by
    )
    return privileges.execute_all(connection, [statement.as_string()])


def _has_membership_options(connection: sa.Connection) -> bool:
    return (connection.dialect.server_version_info or ()) >= (16,)


def _repair_owners(target: sa.Engine) -> list[str]:
    """Give some objects of the schema to fer_owner; returns none once all belong to it."""
    with connections.transaction(target) as connection:
        schema.begin_upgrade(connection)
        composed = connection.execute(_STATEMENTS["compose_ownership"], {"owner": OWNER})
        return privileges.execute_all(connection, composed.scalars().all()[:_OBJECTS_AT_ONCE])


def _repair_privileges(target: sa.Engine) -> list[str]:
    with connections.transaction(target) as connection:
        schema.begin_upgrade(connection)
        composed = connection.execute(_STATEMENTS["compose_default_privileges"], {"owner": OWNER})
        changes = privileges.execute_all(connection, composed.scalars().all())
        changes += privileges.apply(connection, lambda kind: kind == "DATABASE")
        schema.become_owner(connection)
        changes += privileges.apply(connection, lambda kind: kind != "DATABASE")
        return changes + privileges.apply_policies(connection)


# ---------------------------------------------------------------- logins


def grant(
    source: Settings | str, login: str, role: str, facility_ids: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Make a login a member of a role, an inspector with facilities; returns `list_grants`.

    `role` is its name without the prefix `fer_`.
    Raises ConfigurationError for an unknown login or facility, and if row-level security would not
    bind the inspector.
    """
    with (
        _connect_as_administrator(source) as target,
        connections.transaction(target) as connection,
    ):
        _check_roles(connection)
        found = _check_login(connection, login)
        _check_facilities(connection, facility_ids)
        if role == "inspector":
            if found["bypasses_policies"]:
                raise ConfigurationError(
                    f"row-level security does not bind {login}: it is a superuser, or a member "
                    "of fer_owner or fer_writer, and reads all facilities",
                    "Grant it to a login of its own",
                )
            params = {"login": login, "facility_ids": list(facility_ids)}
            connection.execute(_STATEMENTS["grant_facilities"], params)
        _ensure_member(connection, _Membership(login, f"fer_{role}", True, True))
        return _list_grants(connection)


def revoke(
    source: Settings | str, login: str, role: str, facility_ids: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """End a login's membership in a role, an inspector's facilities first; returns `list_grants`.

    With facilities, an inspector stays one while others are left. Raises ConfigurationError if the
    login had neither.
    """
    with (
        _connect_as_administrator(source) as target,
        connections.transaction(target) as connection,
    ):
        _check_roles(connection)
        params = {"login": login, "facility_ids": list(facility_ids)}
        removed = 0
        if role == "inspector":
            removed = connection.execute(_STATEMENTS["revoke_facilities"], params).rowcount
        left = connection.execute(_STATEMENTS["count_facilities"], params).scalar_one()
        if role != "inspector" or not left:
            for row in _list_memberships(connection, [login]):
                # An administrator of the role stays one.
                is_member = row["may_inherit"] or row["may_set"]
                if row["role_name"] == f"fer_{role}" and is_member:
                    _revoke_membership(connection, row)
                    removed += 1
        if not removed:
            raise ConfigurationError(
                f"{login} has no such grant", "See the grants with `fer-batch db grant`"
            )
        return _list_grants(connection)


def list_grants(source: Settings | str) -> list[dict[str, Any]]:
    """Which login has which role, and the facilities of inspectors.

    Keys: `login`, `role` (None for facilities of a login that no longer exists), `facilities`.
    """
    with (
        _connect_as_administrator(source) as target,
        connections.transaction(target) as connection,
    ):
        _check_roles(connection)
        return _list_grants(connection)


def _list_grants(connection: sa.Connection) -> list[dict[str, Any]]:
    roles = [role["role_name"] for role in privileges.load_list(connection, "roles")]
    rows = connection.execute(_STATEMENTS["list_grants"], {"roles": roles})
    return [dict(row) for row in rows.mappings()]


def _check_roles(connection: sa.Connection) -> None:
    if privileges.find_owner(connection) != OWNER:
        raise DatabaseError("the database has no roles yet", privileges.ADMINISTRATOR_HINT)


def _check_login(connection: sa.Connection, login: str) -> Mapping[Any, Any]:
    rows = connection.execute(_STATEMENTS["find_login"], {"login": login}).mappings()
    found = rows.one_or_none()
    if found is None or not found["rolcanlogin"]:
        raise ConfigurationError(
            f"the server has no login {login!r}",
            "Create it first, as with `CREATE ROLE ada LOGIN PASSWORD '…'`",
        )
    return found


def _check_facilities(connection: sa.Connection, facility_ids: Sequence[str]) -> None:
    params = {"facility_ids": list(facility_ids)}
    unknown = connection.execute(_STATEMENTS["list_unknown_facilities"], params).scalars().all()
    if unknown:
        raise ConfigurationError(
            f"the database has no facility {', '.join(sorted(unknown))}",
            "Check the spelling, or write the registry with `fer-batch facilities sync`",
        )
