"""The facility registry: accepted and rejected files, and the error messages."""

import re
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_batch.errors import ConfigurationError, FormerTargetError
from fer_batch.facilities.registry import Facility, Permission
from tests.facilities.conftest import GOOD, PERMISSION


def build_facility(name):
    return Facility(facility_id="x", name="X", time_zone=name, image_kind="crops")


@pytest.mark.parametrize("name", ["my-bucket", "Old_Bucket.Name", "abc", "_" * 255])
def test_buckets_may_have_old_names(load, name):
    assert load(GOOD + f'bucket = "{name}"')["mall"].bucket == name


def test_missing_fields_have_defaults(load):
    mall = load(GOOD)["mall"]

    assert mall.facility_id == "mall"
    prefixes = mall.build_day_keys(date(2026, 3, 9)).prefixes
    assert [prefix.build() for prefix in prefixes] == ["mall/2026-03-09/"]
    assert (mall.day_clock, mall.include, mall.exclude) == ("local", (), ())
    assert mall.empty_days == "error"
    assert (mall.bucket, mall.endpoint, mall.credentials) == (None, None, None)
    assert (mall.expected_images_min, mall.closed_weekdays) == (0, ())
    assert (mall.name_template, mall.name_clock) == (None, "local")
    assert (mall.target_rate, mall.publish_period) == (None, "day")
    assert (mall.key_order, mall.design_effect) == ("time", 6.0)


def test_every_field_is_read(load):
    mall = load(
        GOOD
        + """
        key_template = ["in/{capture_day:%Y%m%d}/", "old/{capture_day:%Y%m%d}/"]
        name_template = "{camera}/{captured_at:%H%M%S}{*}"
        name_clock = "UTC"
        day_clock = "UTC"
        include = "*.jpg"
        exclude = ["*_thumb.jpg", "*/@eaDir/*"]
        empty_days = "allowed"
        bucket = "own-bucket"
        endpoint = "https://s3.example.com/"
        credentials = "mall_keys"
        ready_marker = "_SUCCESS"
        expected_images_min = 10
        closed_weekdays = ["sun", "mon", "sun"]
        target_rate = 1
        publish_period = "week"
        key_order = "none"
        design_effect = 4
        """
        + PERMISSION
    )["mall"]

    assert mall == Facility(
        facility_id="mall",
        name="Mall",
        time_zone="Europe/Berlin",
        image_kind="crops",
        key_template=("in/{capture_day:%Y%m%d}/", "old/{capture_day:%Y%m%d}/"),
        day_clock="UTC",
        include=("*.jpg",),
        exclude=("*_thumb.jpg", "*/@eaDir/*"),
        empty_days="allowed",
        name_template="{camera}/{captured_at:%H%M%S}{*}",
        name_clock="UTC",
        bucket="own-bucket",
        endpoint="https://s3.example.com",
        credentials="mall_keys",
        ready_marker="_SUCCESS",
        expected_images_min=10,
        closed_weekdays=("mon", "sun"),
        target_rate=1.0,
        publish_period="week",
        key_order="none",
        design_effect=4.0,
        permission=Permission(
            purpose="Satisfaction",
            lawful_basis="Art. 6(1)(a) GDPR",
            approved_by="The data protection officer",
            valid_until=date(2026, 6, 30),
        ),
    )


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('time_zone = "Europe/Berln"', "time_zone must be an IANA time zone .*Europe/Berlin"),
        ('time_zone = "Europe"', "time_zone must be an IANA time zone"),
        ('time_zone = "IST"', r"such as .*Asia/Kolkata, written Area/City(?! \()"),
        ('time_zone = "PST"', r"such as .*Asia/Kolkata, written Area/City(?! \()"),
        ('time_zone = "GMT+2"', r"such as .*Asia/Kolkata, written Area/City(?! \()"),
        ('time_zone = "../../etc/passwd"', "time_zone must be an IANA time zone"),
        ('time_zone = "localtime"', "localtime differs from machine to machine"),
        ('image_kind = "faces"', "image_kind is 'faces': input should be 'crops' or 'frames'"),
        ('name = "  "', "name is '  ': string should have at least 1"),
        ('name = "a\\nb"', "name must not contain control characters"),
        ('key_template = "{facility_id}/"', "key_template must contain the complete"),
        ('name_template = "{camera}.jpg"', "name_template must contain the capture time"),
        ("name_template = 3", "name_template is 3: input should be a valid string"),
        ('name_template = "{captured_at:%H%M}"\nname_clock = "utc"', "name_clock is 'utc'"),
        ('name_clock = "UTC"', "name_clock is the clock of name_template"),
        ('bucket = "Mall/x"', "bucket must match .* not 'Mall/x'"),
        ('endpoint = "s3.example.com"', "endpoint must be a URL"),
        ('endpoint = "https://key:secret@s3.example.com"', "endpoint must be a URL"),
        ('endpoint = "https://s3.example.com?x=1"', "endpoint must be a URL"),
        ('endpoint = "http://s3.example.com:99999"', "endpoint must be a URL"),
        ('credentials = "a__b"', "credentials must match"),
        ('ready_marker = "/done"', "ready_marker must be a key below"),
        ("settle_minutes = 0", "settle_minutes is 0: input should be greater"),
        ("settle_minutes = 1.5", "settle_minutes is 1.5: input should be a valid integer"),
        ("expected_images_min = -1", "expected_images_min is -1: input should be greater"),
        ("expected_images_min = true", "expected_images_min is True: input should be a valid int"),
        ('closed_weekdays = ["sunday"]', "closed_weekdays.0 is 'sunday': .* 'sat' or 'sun'"),
        ('closed_weekdays = "sun"', "closed_weekdays is 'sun': input should be a valid tuple"),
        ("target_rate = 80", "target_rate is 80: input should be less than or equal to 1"),
        ("target_rate = nan", "target_rate is nan"),
        ("targetrate = 0.8", r"unknown field targetrate \(did you mean target_rate\?\)"),
        ('publish_period = "month"', "publish_period is 'month': input should be 'day' or 'week'"),
        ('key_order = "name"', "key_order is 'name': input should be 'time' or 'none'"),
        ("design_effect = 0.5", "design_effect is 0.5: input should be greater than or equal to 1"),
        ("design_effect = inf", "design_effect is inf"),
        ('wifi = "x"', r"unknown field wifi .known fields: facility_id, name"),
        ("ready_marker = 'a'\nsettle_minutes = 5", "exclude each other"),
        ('facility_id = "other"', "only the name of the table"),
    ],
)
def test_an_invalid_field_is_reported_with_its_facility(rejected, line, problem):
    name = line.split(" = ")[0]
    text = "\n".join(old for old in GOOD.splitlines() if not old.startswith(f"{name} = "))

    message = rejected(f"{text}\n{line}")

    assert re.search(f"facility mall: .*{problem}", message), message


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('valid_until = "2026-06-30"', "permission.valid_until must be a date such as"),
        ("valid_until = 2026-06-30T00:00:00", "permission.valid_until must be a date such as"),
        ("", "permission.valid_until is missing"),
        (
            "valid_till = 2026-06-30",
            "unknown field permission.valid_till .did you mean valid_until",
        ),
    ],
)
def test_an_invalid_permission_is_rejected(rejected, line, problem):
    text = GOOD + PERMISSION.replace("valid_until = 2026-06-30", line)

    assert re.search(problem, rejected(text))


@pytest.mark.parametrize("facility_id", ["Mall", "-mall", "m" * 64, '"a.b"', '"a/b"', '""', '"é"'])
def test_an_invalid_id_is_rejected(rejected, facility_id):
    text = GOOD.replace("mall]", f"{facility_id}]")

    assert "facility_id must match ^[a-z0-9][a-z0-9_-]{0,62}$" in rejected(text)


def test_all_problems_are_reported_at_once(rejected):
    message = rejected(
        GOOD.replace('name = "Mall"', "name = 1") + GOOD.replace("mall", "shop") + "bucket = 'B'"
    )

    assert "facility mall: name" in message
    assert "facility shop: bucket" in message


def test_a_former_target_is_rejected_with_its_facilities(load):
    text = GOOD + "target_share = 0.8" + GOOD.replace("mall", "shop") + "bucket = 'B'"

    with pytest.raises(
        FormerTargetError, match="facility mall: target_share is no longer a field"
    ) as caught:
        load(text)

    assert caught.value.facility_ids == ("mall",)
    assert "facility shop: bucket" in str(caught.value)


def test_overlapping_prefixes_are_rejected(rejected):
    message = rejected(
        GOOD + GOOD.replace("mall", "shop") + 'key_template = "mall/{capture_day:%Y-%m-%d}/"'
    )

    for one, other in (("mall", "shop"), ("shop", "mall")):
        assert f"facility {one}: key_template gives it and facility {other} overlapping" in message


def test_the_images_of_an_invalid_facility_are_read_for_no_other_one(load_all):
    twin = 'key_template = "mall/{capture_day:%Y-%m-%d}/"'
    other = GOOD.replace("mall", "other")
    registry = load_all(f"{GOOD}bad = 1{GOOD.replace('mall', 'shop')}{twin}{other}")

    assert list(registry.facilities) == ["other"]
    assert "overlapping prefixes" in registry.invalid["shop"].reason
    assert "unknown field bad" in registry.invalid["mall"].reason


def test_the_default_bucket_equals_the_same_name(load, rejected):
    twin = GOOD.replace("mall", "shop") + 'key_template = "mall/{capture_day}/"\nbucket = "b-b"'

    assert "overlapping" in rejected(GOOD + twin, s3_bucket="b-b")
    assert set(load(GOOD + twin, s3_bucket="other")) == {"mall", "shop"}


@pytest.mark.parametrize(
    ("zone", "day", "end"),
    [
        ("Europe/Berlin", date(2026, 1, 15), datetime(2026, 1, 15, 23, tzinfo=UTC)),
        ("Europe/Berlin", date(2026, 3, 29), datetime(2026, 3, 29, 22, tzinfo=UTC)),  # 23 hours
        ("Europe/Berlin", date(2026, 10, 25), datetime(2026, 10, 25, 23, tzinfo=UTC)),  # 25 hours
        ("Asia/Kathmandu", date(2026, 1, 15), datetime(2026, 1, 15, 18, 15, tzinfo=UTC)),
        # Midnight does not exist: the clock jumps from 24:00 to 1:00.
        ("America/Santiago", date(2026, 9, 5), datetime(2026, 9, 6, 4, tzinfo=UTC)),
        # The next day does not exist at all.
        ("Pacific/Apia", date(2011, 12, 29), datetime(2011, 12, 30, 10, tzinfo=UTC)),
    ],
)
def test_a_capture_day_ends_at_local_midnight(zone, day, end):
    assert build_facility(zone).compute_day_end_utc(day) == end


@given(
    st.sampled_from(["Europe/Berlin", "America/Havana", "Asia/Beirut", "Australia/Lord_Howe"]),
    st.dates(date(2000, 1, 1), date(2035, 12, 31)),
)
def test_a_day_ends_when_the_local_date_changes(zone, day):
    facility = build_facility(zone)
    end = facility.compute_day_end_utc(day)

    assert facility.compute_local_day(end) > day
    assert facility.compute_local_day(end - timedelta(microseconds=1)) == day


def test_camera_and_time_are_read_from_the_part_after_the_prefix(load):
    template = 'name_template = "{camera}_{captured_at:%H%M}{*}"'
    key, day = "mall/2026-03-09/door_1225.jpg", date(2026, 3, 9)
    mall = load(GOOD)["mall"]
    assert mall.build_name_parser(day)(key) == (None, None)

    mall = load(f"{GOOD}\n{template}")["mall"]
    assert mall.build_name_parser(day)(key) == ("door", datetime(2026, 3, 9, 11, 25, tzinfo=UTC))
    assert mall.build_name_parser(date(2026, 3, 8))(key) == (None, None)

    mall = load(f"{GOOD}\n{template}\nname_clock = 'UTC'")["mall"]
    assert mall.build_name_parser(day)(key) == ("door", datetime(2026, 3, 9, 12, 25, tzinfo=UTC))


def test_a_permission_is_valid_until_its_last_day(load):
    mall = load(GOOD + PERMISSION)["mall"]

    assert mall.find_permission_problem(date(2026, 6, 30)) is None
    assert mall.find_permission_problem(date(2026, 7, 1)) == "permission ended on 2026-06-30"


def test_without_a_permission_every_day_is_denied(load):
    assert (
        load(GOOD)["mall"].find_permission_problem(date(2026, 1, 1)) == "no permission is recorded"
    )


def test_closed_weekdays_are_recognized(load):
    mall = load(GOOD + 'closed_weekdays = ["sun"]')["mall"]

    assert mall.is_closed(date(2026, 3, 8))
    assert not mall.is_closed(date(2026, 3, 9))


def test_facilities_are_selected_by_id_in_the_registrys_order(load_all):
    registry = load_all(GOOD + GOOD.replace("mall", "shop") + GOOD.replace("mall", "branch"))

    assert list(registry.select().facilities) == ["mall", "shop", "branch"]
    assert list(registry.select(["branch", "mall"]).facilities) == ["mall", "branch"]


def test_an_unknown_id_is_reported_with_close_matches(load_all):
    registry = load_all(GOOD + GOOD.replace("mall", "shop") + "bucket = 'B'")

    with pytest.raises(ConfigurationError, match=r"no facility 'male'.*mean mall\?"):
        registry.select(["shop", "male"])
    with pytest.raises(ConfigurationError, match="Known facilities: mall, shop"):
        registry.select(["zzz"])


@pytest.mark.parametrize(
    "fault",
    [
        'time_zone = "Europe/Olso"',
        'key_template = "{facility_id}/"',
        'image_kind = "faces"',
        "settle_minutes = 0",
        "wifi = 1",
        'facility_id = "x"',
        "target_share = 0.8",
    ],
)
def test_an_invalid_facility_does_not_cost_the_others(load_all, rejected, fault):
    shop = GOOD.replace("mall", "shop")
    field = fault.split(" = ")[0]
    bad = "\n".join(line for line in GOOD.splitlines() if not line.startswith(f"{field} = "))
    text = f"{bad}\n{fault}\n{shop}"
    registry = load_all(text)

    assert list(registry.facilities) == ["shop"]
    assert list(registry.invalid) == ["mall"]
    assert f"facility mall: {registry.invalid['mall'].reason}" in rejected(text)
    assert list(registry.select().facilities) == ["shop"]
    with pytest.raises(ConfigurationError, match="facility mall: "):
        registry.select(["mall"])  # of which nothing is left


def test_an_invalid_facility_belongs_to_its_time_zone(load_all):
    tokyo = GOOD.replace("mall", "shop").replace("Europe/Berlin", "Asia/Tokyo")
    registry = load_all(f"{GOOD}bucket = 'B'{GOOD.replace('mall', 'store')}{tokyo}")

    assert list(registry.select(time_zone="Europe/Berlin").invalid) == ["mall"]
    assert not registry.select(time_zone="Asia/Tokyo").invalid


@pytest.mark.parametrize(
    "misplaced",
    [
        "[mall.permission]\npurpose = 'x'",
        "[facilities.mall]\nname = 'x'",
        "[mall]\nname = 'x'",
        "[[facility.mall]]\nname = 'x'",
    ],
)
def test_a_misplaced_table_makes_its_facility_invalid(load_all, misplaced):
    valid = GOOD if misplaced.startswith("[mall.") else ""
    registry = load_all(f"{valid}\n{misplaced}\n{GOOD.replace('mall', 'shop')}")

    assert list(registry.facilities) == ["shop"]
    assert list(registry.invalid) == ["mall"]


def render_field_table(model):
    """The fields of a table as Markdown, for docs/registry.md."""
    lines = ["| field | default | meaning |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        if field.is_required():
            default = "required"
        else:
            values = field.default if isinstance(field.default, tuple) else (field.default,)
            default = ", ".join("none" if v is None else f"`{v}`" for v in values) or "none"
        lines.append(f"| `{name}` | {default} | {field.description} |")
    return "\n".join(lines)


@pytest.mark.parametrize("model", [Facility, Permission])
def test_every_field_is_documented(repo_root, model):
    page = (repo_root / "docs" / "registry.md").read_text(encoding="utf-8")

    assert render_field_table(model) in page, (
        f"put this into docs/registry.md:\n{render_field_table(model)}"
    )
