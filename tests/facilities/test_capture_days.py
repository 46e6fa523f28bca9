"""A capture day that has not begun is refused, by the clock of each facility."""

from datetime import UTC, date, datetime, timedelta

import pytest

from fer_batch.errors import ConfigurationError
from fer_batch.facilities.capture_days import check_has_begun
from fer_batch.facilities.registry import Facility

DAY = date(2026, 11, 21)


def build(*zones: str) -> list[Facility]:
    return [
        Facility(
            facility_id=zone.rpartition("/")[2].lower(),
            name=zone,
            time_zone=zone,
            image_kind="crops",
        )
        for zone in zones
    ]


@pytest.mark.parametrize(
    ("zone", "begins_utc"),
    [
        ("Europe/Berlin", datetime(2026, 11, 20, 23, tzinfo=UTC)),
        ("Pacific/Kiritimati", datetime(2026, 11, 20, 10, tzinfo=UTC)),
        ("Pacific/Pago_Pago", datetime(2026, 11, 21, 11, tzinfo=UTC)),
    ],
)
def test_a_day_is_accepted_from_its_local_midnight_on(zone: str, begins_utc: datetime) -> None:
    check_has_begun(build(zone), DAY, begins_utc)
    with pytest.raises(ConfigurationError, match="2026-11-21 has not begun yet"):
        check_has_begun(build(zone), DAY, begins_utc - timedelta(microseconds=1))


def test_the_message_names_the_facilities_their_date_and_what_to_do() -> None:
    facilities = build("Asia/Tokyo", "Europe/Berlin", "America/New_York", "UTC", "Europe/Oslo")
    with pytest.raises(ConfigurationError) as raised:
        check_has_begun(facilities, DAY, datetime(2026, 11, 20, 20, tzinfo=UTC))
    text = str(raised.value)
    assert "tokyo" not in text
    assert "for berlin, new_york, utc, …" in text
    assert "Europe/Berlin, where it is 2026-11-20" in text
    assert "--force" in text
