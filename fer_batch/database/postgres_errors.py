"""What PostgreSQL's errors mean: transient or permanent, with a hint.

An error of a statement has a SQLSTATE, which decides, in whatever language the message is. A
connection that fails has none in psycopg. Then `translate_login` repeats it with libpq's trace,
which shows the SQLSTATE of the server's answer. Messages never contain a password or a row.
"""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from fer_batch.errors import DatabaseError, DatabaseUnavailableError, FerError, LockTimeoutError

UPGRADE_HINT = "Run `fer-batch db upgrade`"
PRIVILEGE_HINT = (
    "Use a login that is a member of the role for this command (docs/deploy.md: fer_writer for a "
    "run), and repair the privileges with `fer-batch db roles`"
)
ENCODING_HINT = (
    "Create a database with the encoding UTF8, as with `createdb --encoding=UTF8 "
    "--template=template0 fer`, and set FER_DATABASE_URL to it"
)
_VERSION_HINT = f"{UPGRADE_HINT}: its tables do not match this version"
_FOREIGN_HINT = "The schema fer has objects that fer-batch did not create: remove or rename them"
_DAMAGE_HINT = "Look at the log of the database server: its disk or its files are damaged"
_TRY_AGAIN = "Try again"
_READ_ONLY = "the database accepts no writes"
_READ_ONLY_HINT = (
    "It is a standby, or a failover is in progress: try again. If it persists, set "
    "FER_DATABASE_URL to the primary (or to all hosts, as host1,host2), or reset "
    "default_transaction_read_only of the server, database or role"
)
_ADDRESS_HINT = "Check that it runs and that FER_DATABASE_URL has its address"
_BUG_HINT = "This is a bug of fer-batch, or the tables were changed manually"
_TRACE_TIMEOUT_S = 10.0

# By SQLSTATE, or the beginning of one; the longest counts. Everything else is permanent.
_TRANSIENT: Mapping[str, str] = {
    "08": _TRY_AGAIN,  # the connection failed
    "25006": _READ_ONLY_HINT,
    "25P03": _TRY_AGAIN,  # idle in a transaction
    "25P04": _TRY_AGAIN,  # transaction_timeout
    "40": _TRY_AGAIN,  # serialization failure, deadlock
    "53": _TRY_AGAIN,  # insufficient resources
    "55006": _TRY_AGAIN,  # object in use
    "55P03": "Another session holds a lock: find it in pg_stat_activity, or try again",
    "57014": "The database is busy, or FER_STATEMENT_TIMEOUT_S is too short for this day",
    "57P": _TRY_AGAIN,  # starting up, shutting down, recovering from a crash
}
_PERMANENT: Mapping[str, str] = {
    "": _BUG_HINT,
    "0A": "Use PostgreSQL 15 or newer: other servers lack features that fer-batch needs",
    "21000": _BUG_HINT,
    "22021": ENCODING_HINT,
    "22P05": ENCODING_HINT,
    "2BP01": "Drop your own objects that depend on those of the schema fer, and create them again "
    "afterwards",
    "3F000": _VERSION_HINT,
    "42501": PRIVILEGE_HINT,
    "42703": _VERSION_HINT,
    "42704": "Use PostgreSQL 15 or newer",
    "42710": _FOREIGN_HINT,
    "42723": _FOREIGN_HINT,
    "42883": _VERSION_HINT,
    "42P01": _VERSION_HINT,
    "42P06": _FOREIGN_HINT,
    "42P07": _FOREIGN_HINT,
    "53100": "Free disk space on the database server",
    "53400": "Raise the limit of the database server that the message names",
    "54": "Raise the limit of the database server that the message names",
    "55": "Look at the log of the database server",
    "57P04": "Create the database, or correct FER_DATABASE_URL",
    "58": _DAMAGE_HINT,
    "F0": "Look at the log of the database server: its configuration is wrong",
    "XX": _DAMAGE_HINT,
}

# The connection fails for good; by SQLSTATE of the server's answer.
_LOGIN_HINTS: Mapping[str, str] = {
    "": "Check user, password and database of FER_DATABASE_URL",
    "08": "Check user, password and database of FER_DATABASE_URL, and the connection pooler",
    "0A": "Use PostgreSQL 15 or newer",
    "28000": "Check user, password and database of FER_DATABASE_URL, and whether pg_hba.conf of "
    "the server accepts this machine, with or without TLS (sslmode)",
    "3D000": "Check user, password and database of FER_DATABASE_URL, or create the database",
    "22": "Check the `options` of FER_DATABASE_URL, and the settings of the role and the database",
    "42": "Check user, password and database of FER_DATABASE_URL, grant CONNECT to the role, and "
    "check the `options` of the URL",
    "55": "Check whether the database accepts connections (ALLOW_CONNECTIONS)",
    "57P04": "Create the database, or correct FER_DATABASE_URL",
}
_POOLER_REFUSES = re.compile(r"startup parameter")
"""PgBouncer and its kind; their messages are not translated."""
_POOLER_IS_BUSY = re.compile(
    r"cannot connect to server|no more connections|query_wait_timeout|server login has been failing"
    r"|timeout|shutting down|shutdown|starting up|not yet accepting|paused|suspended"
    r"|server conn crashed|too many|closing because"
)

# Found by libpq or psycopg on this machine, whose messages are English.
_UNKNOWN_HOST = re.compile(r"failed to resolve host .*\[Errno -(2|5)\]")  # EAI_NONAME, EAI_NODATA
_READ_ONLY_SESSION = re.compile(r"session is read-only|server is in hot standby mode")
_NO_TLS = re.compile(
    r"does not support SSL|SSL was required|certificate|[Cc]hannel binding"
    r"|SSL error: (?!unexpected eof)|sslmode|SSL is not supported|private key"
)
_NO_PASSWORD = re.compile(r"no password supplied")
_OTHER_SERVER = re.compile(r"expected authentication request|invalid response to SSL negotiation")
_WRONG_OPTION = re.compile(
    r"connection is bad: (?!.*connection to server)|authentication method|require_auth"
    r"|invalid port|definition of service"
)


def translate(error: BaseException) -> FerError:
    """The error of a statement as a FerError with a hint."""
    state = getattr(error, "sqlstate", None) or ""
    line = _get_first_line(error)
    if not state and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return DatabaseUnavailableError(f"the database cannot be reached: {line}", _ADDRESS_HINT)
    if state == "55P03":
        return LockTimeoutError(f"the database reports: {line}", _TRANSIENT[state])
    what = f"{_READ_ONLY if state == '25006' else 'the database reports'}: {line}"
    if _is_transient(state):
        return DatabaseUnavailableError(what, _find(_TRANSIENT, state))
    return DatabaseError(what, _find(_PERMANENT, state))


def translate_login(error: psycopg.Error, parameters: Mapping[str, Any]) -> FerError:
    """The failure of a connection with these libpq parameters as a FerError with a hint.

    What a server answers is permanent, unless its SQLSTATE is known to be transient.
    """
    lines = _join_lines(error)
    if _UNKNOWN_HOST.search(lines):
        return DatabaseError(
            f"the host of the database is not known: {lines}", "Correct FER_DATABASE_URL"
        )
    is_answerable = not isinstance(error, psycopg.errors.ConnectionTimeout)
    states = _trace_states(parameters) if is_answerable else []
    if permanent := [state for state in states if not _is_transient_login(state, lines)]:
        if _POOLER_REFUSES.search(lines):
            return DatabaseError(
                f"PgBouncer refuses the connection: {lines}",
                "Remove what it names from FER_DATABASE_URL, or add it to "
                "ignore_startup_parameters in pgbouncer.ini",
            )
        return DatabaseError(
            f"the database rejects the login: {lines}", _find(_LOGIN_HINTS, permanent[0])
        )
    if states:
        return DatabaseUnavailableError(f"the database reports: {lines}", _TRY_AGAIN)
    return _translate_local(lines)


def _translate_local(lines: str) -> FerError:
    """A failure that libpq itself reports, without an answer of a server."""
    if _READ_ONLY_SESSION.search(lines):
        return DatabaseUnavailableError(f"{_READ_ONLY}: {lines}", _READ_ONLY_HINT)
    if _WRONG_OPTION.search(lines):
        return DatabaseError(
            f"the options of the database URL are wrong: {lines}", "Correct FER_DATABASE_URL"
        )
    if _OTHER_SERVER.search(lines):
        return DatabaseError(
            f"the server is not PostgreSQL: {lines}", "Correct host and port of FER_DATABASE_URL"
        )
    if _NO_TLS.search(lines):
        return DatabaseError(
            f"the connection to the database cannot be encrypted: {lines}",
            "Set sslmode and the certificates (sslrootcert, sslcert, sslkey) in FER_DATABASE_URL "
            "as the server requires, or switch on TLS there",
        )
    if _NO_PASSWORD.search(lines):
        return DatabaseError(f"the database rejects the login: {lines}", _LOGIN_HINTS[""])
    return DatabaseUnavailableError(f"the database cannot be reached: {lines}", _ADDRESS_HINT)


def _is_transient(state: str) -> bool:
    return len(_find_prefix(_TRANSIENT, state)) > len(_find_prefix(_PERMANENT, state))


def _is_transient_login(state: str, lines: str) -> bool:
    if state in ("08P01", "08004"):  # a pooler's answer to everything
        return bool(_POOLER_IS_BUSY.search(lines)) and not _POOLER_REFUSES.search(lines)
    return _is_transient(state)


def _find(hints: Mapping[str, str], state: str) -> str:
    return hints[_find_prefix(hints, state)]


def _find_prefix(hints: Mapping[str, str], state: str) -> str:
    """The longest key with which the state begins; "" if there is none."""
    return next((state[:n] for n in range(len(state), 0, -1) if state[:n] in hints), "")


def _trace_states(parameters: Mapping[str, Any]) -> list[str]:
    """Connect once more; returns the SQLSTATE of each answer by which a server refuses it.

    libpq keeps it to itself, but for its trace. The trace contains the password: it stays in
    memory, and nothing of it is returned but the SQLSTATE.
    """
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    text = make_conninfo(**{name: v for name, v in parameters.items() if name in known})
    with os.fdopen(os.memfd_create("libpq trace"), "r+b") as trace:
        connection = pq.PGconn.connect_start(text.encode())
        try:
            connection.trace(trace.fileno())
            _poll(connection)
            connection.untrace()
        except psycopg.OperationalError:  # its socket is gone
            pass
        finally:
            connection.finish()
        trace.seek(0)
        answers = re.findall(rb'\tErrorResponse\t.*? C "(\w{5})"', trace.read())
    return [answer.decode() for answer in answers]


def _poll(connection: pq.abc.PGconn) -> None:
    """Drive the connection until it succeeds or fails, or the time is up."""
    deadline = time.monotonic() + _TRACE_TIMEOUT_S
    state = pq.PollingStatus.WRITING
    while connection.status != pq.ConnStatus.BAD:
        if state not in (pq.PollingStatus.READING, pq.PollingStatus.WRITING):
            return
        poll = select.poll()
        is_reading = state == pq.PollingStatus.READING
        poll.register(connection.socket, select.POLLIN if is_reading else select.POLLOUT)
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not poll.poll(left_s * 1000):
            return
        state = pq.PollingStatus(connection.connect_poll())


def _get_first_line(error: BaseException) -> str:
    """The first line of the message; the following ones may quote a row."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _join_lines(error: BaseException) -> str:
    """The message of a failed connection in one line: each host and each attempt has its own."""
    lines = (line.strip().rstrip(".") for line in str(error).splitlines())
    told = [line for line in lines if line and not line.startswith("Is the server running")]
    return "; ".join(dict.fromkeys(told)) or type(error).__name__
