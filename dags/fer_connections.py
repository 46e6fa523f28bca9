"""Turns Airflow's Connections into settings of fer-batch.

Connections are written in many ways: as fields, a URI or JSON, with values of any type in the
extra, and with keys that only Airflow's own hooks know. These functions pass on what fer-batch
needs; fer_settings.py fetches the Connections.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

FOR_POSTGRES_HOOK = frozenset(
    {
        "aws_conn_id",
        "azure_conn_id",
        "cluster-identifier",
        "cursor",
        "enable_log_db_messages",
        "iam",
        "redshift",
        "redshift-serverless",
        "sqlalchemy_query",
        "sqlalchemy_scheme",
        "workgroup-name",
    }
)
"""Keys in the extra of a Postgres Connection that are no parameters of PostgreSQL."""


class InvalidConnectionError(Exception):
    """A Connection cannot be used; the message says which one and what to do."""


def build_database_url(connection: Any) -> str:
    """Return the URL of a Postgres Connection, with several hosts if it names several.

    Other keys of its extra are parameters of PostgreSQL, such as `sslmode`. Raises
    InvalidConnectionError for a login that only Airflow's own hook can get.
    """
    extra = _read_extra(connection)
    if _is_true(extra.get("iam")) or extra.get("azure_conn_id"):
        raise InvalidConnectionError(
            f"the Connection {connection.conn_id} gets its password from a cloud service (iam, "
            "azure_conn_id), which fer-batch does not support. Give it a user with a password"
        )
    login = quote(str(connection.login or ""), safe="")
    if connection.password:
        login += f":{quote(str(connection.password), safe='')}"
    host = str(connection.host or "")
    options = {
        name: _format_value(value)
        for name, value in extra.items()
        if name not in FOR_POSTGRES_HOOK and _is_plain(value)
    }
    if host.startswith("/"):  # the folder of a Unix socket
        options = {"host": host, **options}
        host = ""
        if connection.port:
            options["port"] = str(connection.port)
    places = ",".join(_format_place(each.strip(), connection.port) for each in host.split(","))
    url = f"postgresql://{login}@{places}" if login else f"postgresql://{places}"
    url += f"/{quote(str(connection.schema or ''), safe='')}"
    return f"{url}?{urlencode(options, quote_via=quote)}" if options else url


def check_unreadable(name: str, environment: Mapping[str, str]) -> None:
    """Raise InvalidConnectionError if Airflow has dropped a Connection that it cannot parse.

    It drops URIs with several ports, for example, and says only that there is no such Connection.
    """
    variable = f"AIRFLOW_CONN_{name.upper()}"
    if environment.get(variable):
        raise InvalidConnectionError(
            f"Airflow cannot read the Connection in {variable}. If it names several hosts with "
            'ports, write it as JSON: {"conn_type": "postgres", "host": "host1:5432,host2:5433", '
            '"schema": "fer", "login": "…", "password": "…"}'
        )


def read_s3_settings(connection: Any) -> dict[str, str]:
    """Return the settings of the AWS Connection of the default bucket, without its keys."""
    extra = _read_extra(connection)
    service = _read_part(_read_part(extra, "service_config"), "s3")
    session = _read_part(extra, "session_kwargs")
    addressing = _read_part(_read_part(extra, "config_kwargs"), "s3").get("addressing_style")
    verify = extra.get("verify")
    settings = {
        "FER_S3_ENDPOINT": service.get("endpoint_url") or extra.get("endpoint_url"),
        "FER_S3_BUCKET": service.get("bucket_name"),
        "FER_S3_REGION": extra.get("region_name") or session.get("region_name"),
        "FER_S3_PATH_STYLE": {"path": "true", "virtual": "false"}.get(str(addressing)),
        # Without a path it says whether certificates are verified: fer-batch always does.
        "FER_S3_CA_BUNDLE": None if str(verify).lower() in ("true", "false", "1", "0") else verify,
    }
    return {name: str(value) for name, value in settings.items() if value}


def read_s3_keys(connection: Any, prefix: str) -> dict[str, str]:
    """Return the keys of an AWS Connection; Airflow's own hook resolves one that assumes a role."""
    extra = _read_extra(connection)
    key, secret = connection.login, connection.password
    token = extra.get("aws_session_token")
    if extra.get("role_arn") or extra.get("profile_name"):
        from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

        keys = AwsBaseHook(aws_conn_id=connection.conn_id, client_type="s3").get_credentials()
        key, secret, token = keys.access_key, keys.secret_key, keys.token
    elif not (key and secret):
        for part in (extra, _read_part(extra, "session_kwargs")):
            if part.get("aws_access_key_id") and part.get("aws_secret_access_key"):
                key, secret = part["aws_access_key_id"], part["aws_secret_access_key"]
                token = part.get("aws_session_token")
                break
    if not (key and secret):
        return {}
    settings = {"ACCESS_KEY_ID": key, "SECRET_ACCESS_KEY": secret, "SESSION_TOKEN": token}
    return {f"{prefix}{name}": str(value) for name, value in settings.items() if value}


def read_smtp_settings(connection: Any) -> dict[str, str]:
    """Return the settings of an SMTP Connection, with the keys of Airflow's SMTP provider.

    `from_email` is the sender; `disable_ssl` and `disable_tls` say how the server encrypts. Without
    `disable_ssl`, port 465 means TLS from the start, and every other port STARTTLS.
    """
    extra = _read_extra(connection)
    is_implicit = connection.port in (None, 465)
    if extra.get("disable_ssl") not in (None, ""):
        is_implicit = not _is_true(extra["disable_ssl"])
    security = "tls" if is_implicit else "starttls"
    if not is_implicit and _is_true(extra.get("disable_tls")):
        security = "none"
    settings = {
        "FER_SMTP_HOST": connection.host,
        "FER_SMTP_PORT": connection.port,
        "FER_SMTP_SECURITY": security,
        "FER_SMTP_USER": connection.login,
        "FER_SMTP_PASSWORD": connection.password,
        "FER_SMTP_FROM": extra.get("from_email"),
        "FER_SMTP_CA_BUNDLE": extra.get("ca_bundle"),
    }
    return {name: str(value) for name, value in settings.items() if value}


def read_chat_url(connection: Any) -> str:
    """Return the webhook of a chat: the password of its Connection, or else its address.

    The password may be the whole webhook, or what follows the host, as Airflow's Slack provider has
    it.
    """
    host, secret = str(connection.host or ""), str(connection.password or "")
    if "://" in secret:
        return secret
    if not host:
        raise InvalidConnectionError(
            f"the Connection {connection.conn_id} has no webhook. Enter it as the password"
        )
    if "://" not in host:
        scheme = str(connection.schema or "")
        host = f"{scheme if scheme in ('http', 'https') else 'https'}://{host}"
        if connection.port:
            host += f":{connection.port}"
    return f"{host.rstrip('/')}/{secret.lstrip('/')}" if secret else host


def _read_extra(connection: Any) -> dict[str, Any]:
    """Return the extra; raises InvalidConnectionError if it is not a JSON object."""
    extra = connection.extra_dejson
    if not isinstance(extra, dict) or (connection.extra and connection.extra.strip() and not extra):
        if str(connection.extra).strip() in ("{}", "null"):
            return {}
        raise InvalidConnectionError(
            f"the extra of the Connection {connection.conn_id} is not a JSON object. Correct it"
        )
    return extra


def _read_part(extra: dict[str, Any], name: str) -> dict[str, Any]:
    part = extra.get(name)
    return part if isinstance(part, dict) else {}


def _format_place(host: str, port: object) -> str:
    """Return a host with its port: its own, as in `host:port`, or that of the Connection."""
    if host.count(":") > 1 and not host.startswith("["):
        host = f"[{host}]"  # an IPv6 address
    has_port = ":" in host.rpartition("]")[2]
    return host if has_port or not port else f"{host}:{port}"


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float) and value != ""


def _is_true(value: object) -> bool:
    return str(value).lower() in ("true", "1")


def _format_value(value: object) -> str:
    """Return a value of JSON as PostgreSQL's parameters have it."""
    return str(int(value)) if isinstance(value, bool) else str(value)
