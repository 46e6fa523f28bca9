"""`fer-batch audit`: draw, list, show, finish and refresh, with the login of an inspector."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from fer_batch.database import roles
from tests.fixtures.command import Command
from tests.fixtures.night import DAY, Night, format_facility
from tests.fixtures.servers import INSPECTOR, switch_login

LABEL = """
insert into fer.audit_label (audit_id, face_number, facility_id, rater, label)
select audit_id, face_number, facility_id, %s, case when face_number <= %s then 'cannot_tell'
    else called_class end
from fer.audit_result returning 1
"""


def test_an_audit_by_command(nightly: Command, night: Night) -> None:
    night.write_registry(format_facility("shop"))
    night.fill("shop", happy=70, sad=50)
    night.run()
    url = nightly.env["FER_DATABASE_URL"]
    roles.grant(switch_login(url), INSPECTOR, "inspector", ["shop"])
    env = {**nightly.env, "FER_DATABASE_URL": switch_login(url, INSPECTOR)}
    inspector = Command(nightly.server, nightly.folder, env)

    drawn = inspector("audit", "sample", "--facility", "shop", "--faces", "40", "--seed", "5")
    assert drawn.code == 0
    text = " ".join(drawn.out.split())
    assert "Sampled: 40 of 120 faces of 1 days from 2026-10-24 to 2026-11-20" in text
    assert "with 40 labels" in text
    again = inspector(
        *("audit", "sample", "--facility", "shop", "--faces", "40", "--seed", "5", "--json")
    ).json
    assert (again["audit"]["seed"], again["audit"]["faces_drawn"]) == (5, 40)
    periods = {each["period"]: each for each in again["expectations"]}
    assert periods["day"]["faces"] == 120
    assert 0 < periods["four weeks"]["width"] < periods["day"]["width"] < 1

    night.query(LABEL, "Ada", 0)
    night.query(LABEL, "Bo", 4)
    (newest, _) = inspector("audit", "list", "--json").json
    assert (newest["faces"], newest["labeled"], newest["raters"]) == (40, 40, ["Ada", "Bo"])
    number = str(newest["audit_id"])
    shown = " ".join(inspector("audit", "show", number).out.split())
    assert "Cohen's kappa of 40 faces: 0." in shown
    assert "They disagree on 4, of which 0 are settled." in shown

    past = inspector("audit", "finish", number, "--from", str(DAY))
    assert past.code == 2
    assert "summarize --facility shop --from" in past.err
    finished = inspector("audit", "finish", number, "--json").json
    assert (finished["labels"], finished["method"]) == (40, "benchmark")
    first = datetime.fromisoformat(finished["audit"]["start_day"]).date()
    assert abs(first - datetime.now(UTC).date()) <= timedelta(1)
    assert "is finished" in inspector("audit", "finish", number).err

    refreshed = inspector("audit", "refresh", number, "--json").json
    assert refreshed[0]["scored"] == refreshed[0]["called the same"] == 40
    asked = nightly("summarize", "--from", str(DAY), "--to", str(DAY), "--json").json
    assert [(row["audit_id"], row["reason"]) for row in asked] == [
        (int(number), f"re-estimated with audit {number}")
    ]
    assert "there is no audit 99" in inspector("audit", "show", "99").err
