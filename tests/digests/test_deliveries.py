"""When a digest is sent if its facilities are in several time zones, and which nights it misses."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from fer_batch.digests.deliveries import Nights, choose_day, find_end, find_missed

DAY = date(2026, 11, 28)
BEFORE = DAY - timedelta(days=1)
ZONES = {
    "tokyo": "Asia/Tokyo",
    "berlin": "Europe/Berlin",
    "london": "Europe/London",
    "chicago": "America/Chicago",
    "honolulu": "Pacific/Honolulu",
}
WEEK = frozenset(DAY - timedelta(days=n) for n in range(1, 8))


def night_of(zone: str, day: date = DAY) -> datetime:
    """An hour after the DAG of a time zone has begun."""
    return find_end(day, zone) + timedelta(hours=4)


def make_nights(*finished: str, day: date = DAY, week: frozenset[date] = WEEK) -> dict[str, Nights]:
    return {
        name: Nights(week | ({day} if name in finished else frozenset()), min(week, default=day))
        for name in ZONES
    }


def test_the_run_of_the_last_time_zone_sends_the_digest() -> None:
    finished: list[str] = []
    sent = []
    for name, zone in ZONES.items():  # from east to west
        finished.append(name)
        sent.append(choose_day(DAY, make_nights(*finished), ZONES, night_of(zone)))
    # The day before has been sent by its own last run, so it is found and is no news.
    assert sent == [BEFORE, BEFORE, BEFORE, BEFORE, DAY]


def test_a_run_that_never_came_is_not_waited_for_for_ever() -> None:
    nights = make_nights("tokyo", "berlin", "london", "chicago")  # Honolulu's did not finish
    next_night = DAY + timedelta(days=1)
    now = night_of("Asia/Tokyo", next_night)
    assert choose_day(next_night, nights, ZONES, now) is None  # Honolulu's may still be running
    tokyo = nights["tokyo"]
    nights["tokyo"] = Nights(tokyo.finished | {next_night}, tokyo.first)
    later = night_of("Europe/Berlin", next_night)
    assert choose_day(next_night, nights, ZONES, later) == DAY


def test_nobody_waits_for_a_time_zone_whose_dag_is_paused() -> None:
    nights = make_nights("tokyo", "berlin", "london", "chicago")
    nights["honolulu"] = Nights()
    assert choose_day(DAY, nights, ZONES, night_of("America/Chicago")) == DAY


def test_the_first_night_of_an_installation_waits_for_all_time_zones() -> None:
    nights = make_nights("tokyo", week=frozenset())
    assert choose_day(DAY, nights, ZONES, night_of("Asia/Tokyo")) is None
    complete = make_nights(*ZONES, week=frozenset())
    assert choose_day(DAY, complete, ZONES, night_of("Pacific/Honolulu")) == DAY


@given(
    st.sets(st.sampled_from([*ZONES])),
    st.sets(st.integers(1, 9)),
    st.integers(-60, 60),
)
def test_a_day_whose_runs_have_all_finished_is_never_waiting(
    finished: set[str], week: set[int], hours: int
) -> None:
    nights = make_nights(*finished, week=frozenset(DAY - timedelta(days=n) for n in week))
    now = datetime(2026, 11, 29, tzinfo=UTC) + timedelta(hours=hours)
    day = choose_day(DAY, nights, ZONES, now)
    assert day in (DAY, BEFORE, None)
    if finished == set(ZONES):
        assert day == DAY
    if not finished:
        assert day != DAY


def test_nights_since_the_last_digest_are_missed_if_they_did_not_finish() -> None:
    known = Nights(frozenset({DAY, DAY - timedelta(days=4)}), DAY - timedelta(days=10))
    new = Nights(frozenset({DAY}), DAY)  # in the registry since today
    nights = {"old": known, "new": new, "never": Nights()}
    missed = find_missed(nights, DAY, DAY - timedelta(days=4))
    assert [(night.day, sorted(night.facility_ids)) for night in missed] == [
        (DAY - timedelta(days=n), ["old"]) for n in (3, 2, 1)
    ]
    assert find_missed(nights, DAY, BEFORE) == []
    assert len(find_missed(nights, DAY, None)) == 5  # of the last seven days
    assert len(find_missed(nights, DAY, date(2026, 1, 1))) == 9  # since the first night
