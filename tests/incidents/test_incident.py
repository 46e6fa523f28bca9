"""Messages about incidents: what they say, what they never say, and their delivery."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_batch.cli import incident as command
from fer_batch.errors import ConfigurationError
from fer_batch.incidents.incident import FailedTask, Incident, NewFinding, redact, write_message
from fer_batch.incidents.sending import list_secrets, send_incident
from fer_batch.settings import Settings
from tests.support.receivers import chat_server_running, smtp_server_running

pytestmark = pytest.mark.usefixtures("in_process")

DAY = date(2026, 11, 28)
FINDING = NewFinding(
    facility_id="north-mall",
    check="listing_failed",
    severity="error",
    meaning="the bucket could not be listed",
    first_day=DAY,
    last_day=DAY,
)
INCIDENT = Incident(
    kind="failed run",
    dag_id="satisfaction_nightly_europe_berlin",
    run_id="scheduled__2026-11-29T02:00:00+00:00",
    capture_day=DAY,
    reason="task_failure",
    link="https://airflow.example.com/dags/satisfaction_nightly_europe_berlin/runs/1",
    tasks=(FailedTask(name="score [3]", error="bucket b does not exist. Correct FER_S3_BUCKET"),),
    findings=(FINDING,),
)


def build_settings(**values: Any) -> Settings:
    mail = {"smtp_host": "127.0.0.1", "smtp_security": "none", "smtp_from": "fer@example.com"}
    return Settings(_env_file=None, **mail | values)


def test_a_message_says_which_run_failed_why_what_to_do_and_where() -> None:
    message = write_message(INCIDENT)
    assert message.subject == (
        "fer-batch: run failed, satisfaction_nightly_europe_berlin, 2026-11-28, north-mall"
    )
    for part in (
        "satisfaction_nightly_europe_berlin for the capture day Sat 28 Nov failed.",
        "- score [3]: bucket b does not exist. Correct FER_S3_BUCKET",
        "- north-mall, Sat 28 Nov: listing_failed, error: the bucket could not be listed",
        "clear the failed task with its downstream",
        INCIDENT.link,
    ):
        assert part in message.text
    late = write_message(INCIDENT.model_copy(update={"reason": "timed_out"}))
    assert "exceeded the time limit of a run" in late.text


KEYS = st.one_of(
    st.from_regex(r"[a-z0-9-]{1,9}/[a-z0-9=_-]{1,9}/[A-Za-z0-9=_.-]{1,12}", fullmatch=True),
    st.from_regex(r"[a-z0-9-]{1,9}/[A-Za-z0-9_-]{1,12}\.(jpg|JPEG|png|webp)", fullmatch=True),
    st.from_regex(r"'[a-z]{1,9}/my camera [0-9]{1,3}\.jpg'", fullmatch=True),
)


@given(KEYS, st.sampled_from(["{}", "image {}: cannot be read", "({}), next", "key={} etag=1"]))
def test_no_key_of_an_image_is_told(key: str, sentence: str) -> None:
    error = sentence.format(key)
    task = FailedTask(name="score", error=error)
    message = write_message(INCIDENT.model_copy(update={"tasks": (task,)}))
    assert key.strip("'") not in message.text


def test_no_secret_is_told_and_addresses_of_files_and_docs_stay() -> None:
    secrets = list_secrets(
        build_settings(
            smtp_password="pa$$word",
            chat_urls={"ops": "https://hooks.example.com/s3cr3t"},
            s3_credentials={"other": {"access_key_id": "a", "secret_access_key": "k3y"}},
        )
    )
    assert {"pa$$word", "https://hooks.example.com/s3cr3t", "k3y"} <= set(secrets)
    for text, kept in {
        "login pa$$word refused": "refused",
        "https://hooks.example.com/s3cr3t answered 404": "answered 404",
        "postgresql://fer:k3y@db:5432/fer is wrong": "//db:5432/fer is wrong",
        "https://s3.example.com/b?X-Signature=s3cr3t failed": "https://s3.example.com/b?… failed",
        "s3://images/shop/s3cr3t.jpg failed": "s3://images",
    }.items():
        shown = redact(text, secrets)
        assert kept in shown
        assert not [secret for secret in ("pa$$word", "s3cr3t", "k3y") if secret in shown]
    for text in (
        "/opt/airflow/config/facilities.toml is not valid TOML: line 3",
        "Europe/Berlin; see docs/registry.md and https://airflow.example.com/a/b/c",
    ):
        assert redact(text, secrets) == text


def test_a_message_reaches_everybody_who_can_be_reached() -> None:
    with smtp_server_running() as smtp, chat_server_running() as chat:
        smtp.refusals["gone@example.com"] = "550 no such user"
        settings = build_settings(
            smtp_port=smtp.port,
            chat_urls={"ops": f"{chat.url}/hook", "down": "http://127.0.0.1:9/x"},
            incident_to="Anna@example.com, gone@example.com,no address",
            incident_chats="OPS,down,ops",
        )
        message, told = send_incident(settings, INCIDENT)
    [mail] = smtp.read("Anna@example.com")
    assert mail["Subject"] == write_message(INCIDENT).subject
    assert INCIDENT.link in mail.get_content()
    assert mail["Auto-Submitted"] == "auto-generated"
    assert (chat.posts[0][0], chat.posts[0][1]["title"]) == ("/hook", mail["Subject"])
    states = {each.recipient: each.state for each in told}
    assert states["Anna@example.com"] == states["chat:OPS"] == "sent"
    assert states["gone@example.com"] == states["no address"] == states["chat:down"] == "failed"
    details = " ".join(each.detail for each in told)
    assert all(part in details for part in ("550", "FER_INCIDENT_TO", "'down'"))
    assert message.subject == mail["Subject"]


def test_the_exit_code_says_whether_everybody_was_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigurationError, match="nobody is to be told"):
        command.incident(test=True)
    with pytest.raises(ConfigurationError, match="either a file or --test"):
        command.incident()
    with smtp_server_running() as smtp:
        for name, value in {"HOST": "127.0.0.1", "PORT": smtp.port, "SECURITY": "none"}.items():
            monkeypatch.setenv(f"FER_SMTP_{name}", str(value))
        monkeypatch.setenv("FER_SMTP_FROM", "fer@example.com")
        monkeypatch.setenv("FER_INCIDENT_TO", "anna@example.com")
        assert command.incident(test=True) == 0
        monkeypatch.setenv("FER_INCIDENT_CHATS", "unknown")
        assert command.incident(test=True) == 3
    assert len(smtp.read("anna@example.com")) == 2
    assert "chat:unknown" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["failed run", "late run", "new findings", "test"])
def test_every_kind_has_words(kind: Any) -> None:
    message = write_message(Incident(kind=kind, dag_id="d\r\nBcc: eve@x.org", run_id="r"))
    assert len(message.subject.splitlines()) == 1
    assert "What to do: " in message.text
