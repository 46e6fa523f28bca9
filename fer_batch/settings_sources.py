"""Read the settings from the environment and a file, and hand them to child processes.

A misspelled name is an error. `fer-batch config` shows each setting with its source. The settings
themselves are in settings.py.
"""

from __future__ import annotations

import difflib
import os
import re
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource, SettingsError

from fer_batch.errors import ConfigurationError
from fer_batch.log import get_logger
from fer_batch.settings import Settings

log = get_logger(__name__)

_OTHER_VARIABLES = frozenset(
    {
        "FER_ENV_FILE",  # read here
        "FER_PYTHON",  # read by the DAGs, as the next four
        "FER_DEADLINE_CALLBACK",
        "FER_DEADLINE_HOURS",
        "FER_INCIDENT_CALLBACK",
        "FER_MAINTENANCE_DATABASE_URL",
        "FER_DB_PASSWORD",  # configures the containers of docker/, as the next six
        "FER_IMAGE",
        "FER_POOL_SLOTS",
        "FER_WORKERS",
        "FER_WORKER_CONCURRENCY",
        "FER_WORKER_CPUS",
        "FER_WORKER_MEMORY",
        "FER_STACK_SERVER",  # marks the processes of the local stack
        "FER_FAILPOINT",  # for tests, as the next one
        "FER_TEST_SERVERS",
    }
)
"""Variables that are no settings, and that other parts of the project read."""
_NESTED = ("FER_S3_CREDENTIALS__", "FER_CHAT_URLS__")
"""The beginnings of settings that end with a name of the user's choice."""
_SIMILAR = 0.75
"""From this similarity to a setting on (0 to 1), an unknown variable is a misspelled one."""


def get_env_file() -> Path:
    """Return the file with settings that are not in the environment."""
    return Path(os.environ.get("FER_ENV_FILE") or ".env")


def get_log_format() -> Literal["console", "json"]:
    """Return the log format without validating the other settings."""
    return "json" if os.environ.get("FER_LOG_FORMAT") == "json" else "console"


def load_settings() -> Settings:
    """Read the settings. Raises ConfigurationError that names each invalid or misspelled one.

    Other variables that begin with FER_ and are no settings are named in a warning.
    """
    file = get_env_file()
    if os.environ.get("FER_ENV_FILE") and not file.exists():
        raise ConfigurationError(f"{file} does not exist", "Correct FER_ENV_FILE")
    try:
        settings = Settings(_env_file=file)
        _check_names(file)
        if (settings.s3_access_key_id is None) == (settings.s3_secret_access_key is None):
            return settings
        # Do not use the AWS credential chain: its keys may be of another account.
        problem = "only one of FER_S3_ACCESS_KEY_ID and FER_S3_SECRET_ACCESS_KEY is set"
    except ValidationError as error:
        problem = "; ".join(
            f"FER_{'__'.join(str(part) for part in e['loc']).upper()}: "
            f"{'is not a setting' if e['type'] == 'extra_forbidden' else e['msg']}"
            for e in error.errors()
        )
    except SettingsError as error:  # its cause contains the value, which may be a secret
        found = re.search(r'field "(s3_credentials|chat_urls)"', str(error))
        name = "s3_credentials" if found is None else found[1]
        nested = "NAME__ACCESS_KEY_ID …" if name == "s3_credentials" else "NAME"
        problem = f"FER_{name.upper()}: must be JSON; or set FER_{name.upper()}__{nested}"
    except UnicodeDecodeError:
        problem = f"{file} is not UTF-8"
    raise ConfigurationError(
        f"invalid settings: {problem}", f"Correct them in the environment or in {file}"
    )


def _check_names(file: Path) -> None:
    """Raise ConfigurationError for misspelled names in the environment and in the file.

    A name that resembles no setting is a warning only: another program may read it.
    """
    sources = EnvSettingsSource(Settings), DotEnvSettingsSource(Settings, env_file=file)
    names = {name.upper() for source in sources for name in source.env_vars}
    known = {*_OTHER_VARIABLES, *(f"FER_{name.upper()}" for name in Settings.model_fields)}
    unknown = sorted(
        name for name in names - known if name.startswith("FER_") and not name.startswith(_NESTED)
    )
    if misspelled := {name: near for name in unknown if (near := _find_similar(name, known))}:
        quoted = (f"{name} (did you mean {near}?)" for name, near in misspelled.items())
        raise ConfigurationError(
            f"unknown settings: {', '.join(quoted)}",
            f"Correct or remove them in the environment or in {file}; `fer-batch config` lists "
            "all settings",
        )
    for name in unknown:
        log.warning(f"{name} is not a setting and has no effect: see `fer-batch config`")


def _find_similar(name: str, known: Collection[str]) -> str | None:
    """The known variable that a name resembles most; the common prefix does not count."""
    by_end = {variable.removeprefix("FER_"): variable for variable in sorted(known)}
    end = name.removeprefix("FER_").partition("__")[0]
    near = difflib.get_close_matches(end, by_end, 1, _SIMILAR)
    return by_end[near[0]] if near else None


def to_environment(settings: Settings) -> dict[str, str]:
    """Return the set settings as variables for a child process, secrets included.

    The time left for the task is what is left of it now.
    """
    variables: dict[str, str] = {}

    def add(name: str, value: object) -> None:
        if isinstance(value, dict):
            for key, part in value.items():
                add(f"{name}__{key.upper()}", part)
        elif isinstance(value, BaseModel):
            add(name, dict(value))
        elif isinstance(value, SecretStr):
            variables[name] = value.get_secret_value()
        elif value is not None:
            variables[name] = str(value)

    for field in Settings.model_fields:
        add(f"FER_{field.upper()}", getattr(settings, field))
    if settings.deadline is not None:
        variables["FER_TIME_LEFT_S"] = str(settings.deadline - time.monotonic())
    return variables


def list_sources(settings: Settings) -> list[dict[str, Any]]:
    """Return each setting with its value (secrets masked), source and description."""
    environment = EnvSettingsSource(Settings)()
    dotenv = DotEnvSettingsSource(Settings, env_file=get_env_file())()
    values = settings.model_dump(mode="json")
    rows = []
    for name, field in Settings.model_fields.items():
        if name in environment:
            source = "environment"
        elif name in dotenv:
            source = str(get_env_file())
        else:
            source = "default"
        rows.append(
            {
                "name": f"FER_{name.upper()}",
                "value": _mask_login(values[name]),
                "source": source,
                "description": field.description or "",
            }
        )
    return rows


def _mask_login(value: Any) -> Any:
    """Mask the login in a URL, which does not belong there but occurs."""
    return re.sub("//[^/]*@", "//**********@", value) if isinstance(value, str) else value
