"""Which variables a scoring process gets."""

from __future__ import annotations

from typing import Any

import pytest

from fer_batch.facilities.registry import Facility
from fer_batch.pipeline.process_environment import build_environment
from fer_batch.settings import Settings
from tests.fixtures.s3 import build_facility

KEYS: dict[str, Any] = {
    "s3_access_key_id": "default",
    "s3_secret_access_key": "default-secret",
    "s3_credentials": {
        "mall_keys": {"access_key_id": "mall", "secret_access_key": "mall-secret"},
        "report": {"access_key_id": "report", "secret_access_key": "report-secret"},
    },
    "database_url": "postgresql://fer:login@db/fer",
    "erasure_secret": "of-images-that-nobody-may-read-secret",
}
CHAIN = {"AWS_PROFILE": "shop", "AWS_ROLE_ARN": "arn:aws:iam::1:role/reader"}


def build(
    *credentials: str | None, inherited: dict[str, str] | None = None, **settings: Any
) -> dict[str, str]:
    facilities: list[Facility] = [
        build_facility(f"facility-{number}", credentials=name)
        for number, name in enumerate(credentials)
    ]
    return build_environment(Settings(**settings), facilities, inherited or {})


@pytest.mark.parametrize(
    ("credentials", "secrets"),
    [
        ([None], {"default-secret"}),
        (["mall_keys"], {"mall-secret"}),
        ([None, "mall_keys"], {"default-secret", "mall-secret"}),
        ([], set()),
        (["not_set"], set()),
    ],
)
def test_it_gets_the_keys_of_its_facilities(
    credentials: list[str | None], secrets: set[str]
) -> None:
    environment = build(*credentials, **KEYS)
    found = {value for value in environment.values() if value.endswith("-secret")}
    assert found == secrets
    assert environment["FER_DATABASE_URL"] == "postgresql://fer:login@db/fer"


@pytest.mark.parametrize(
    ("credentials", "settings", "is_used"),
    [
        ([None], {}, True),
        (["mall_keys", None], {"s3_credentials": KEYS["s3_credentials"]}, True),
        (["mall_keys"], {"s3_credentials": KEYS["s3_credentials"]}, False),
        ([None], KEYS, False),
    ],
)
def test_the_aws_chain_is_for_facilities_without_keys(
    credentials: list[str | None], settings: dict[str, Any], is_used: bool
) -> None:
    environment = build(*credentials, inherited=CHAIN, **settings)
    assert (environment.keys() >= CHAIN.keys()) == is_used
    assert is_used or not environment.keys() & CHAIN.keys()


def test_it_inherits_what_a_process_needs_to_start_and_nothing_else() -> None:
    allowed = {
        "PATH": "/usr/bin",
        "LC_ALL": "de_DE.UTF-8",
        "TZ": "Asia/Kolkata",
        "HTTPS_PROXY": "http://proxy:3128",
        "SSL_CERT_FILE": "/etc/ca.pem",
        "PGPASSFILE": "/run/secrets/pgpass",
    }
    others = {
        "AIRFLOW__CORE__FERNET_KEY": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "FER_SOMETHING": "x",
        "FER_S3_SECRET_ACCESS_KEY": "x",
        "PGPASSWORD": "x",
        "PYTHONSTARTUP": "x",
        "LD_PRELOAD": "x",
    }
    environment = build("mall_keys", inherited=allowed | others, **KEYS)
    assert environment.items() >= allowed.items()
    assert not environment.keys() & others.keys()
