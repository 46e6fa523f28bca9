"""A bucket location as a whole: refusals, keys, certificates and addresses."""

import threading
from datetime import timedelta
from urllib.parse import urlsplit

import obstore
import pytest

from fer_batch.errors import ConfigurationError, StorageError, StorageUnavailableError
from fer_batch.facilities.registry import Facility
from fer_batch.storage.client import Clients
from fer_batch.storage.location import BucketLocation
from fer_batch.storage.reader import BucketReader

SECRET = "another-secret-key"
CLOSED = "http://127.0.0.1:9"

READS = {
    "check": lambda reader, _: reader.check(),
    "list": lambda reader, _: list(reader.list("a/")),
    "exists": lambda reader, _: reader.exists("a"),
    "fetch": lambda reader, image: list(reader.fetch_many([image("a"), image("b//")])),
    "fetch many": lambda reader, image: list(
        reader.fetch_many(image(f"{n}.jpg") for n in range(100))
    ),
}


@pytest.fixture(params=READS)
def read(request, image):
    """A way to read with the settings; a test that uses it runs once for each way."""

    def read_with(settings):
        with BucketReader(settings) as reader:
            return READS[request.param](reader, image)

    return read_with


def facility(**fields):
    return Facility(
        facility_id="harbour", name="Harbour", time_zone="UTC", image_kind="crops", **fields
    )


def test_a_missing_bucket_is_named(s3_settings, read):
    settings = s3_settings.model_copy(update={"s3_bucket": "no-such-bucket"})

    with pytest.raises(StorageError, match=r"'no-such-bucket' at .* does not exist") as caught:
        read(settings)
    assert "FER_S3_BUCKET" in caught.value.hint


@pytest.mark.parametrize("wrong", ["s3_secret_access_key", "s3_access_key_id"])
def test_wrong_keys_are_reported_without_disclosing_them(s3, build_s3_settings, wrong, read):
    keys = {"s3_access_key_id": s3.access_key_id, "s3_secret_access_key": s3.secret_access_key}
    settings = build_s3_settings(s3.endpoint, s3.bucket, **keys | {wrong: SECRET})

    with pytest.raises(StorageError, match="refuses the keys") as caught:
        read(settings)
    assert "FER_S3_SECRET_ACCESS_KEY" in caught.value.hint
    message = f"{caught.value} {caught.value.__cause__}"
    assert SECRET not in message
    assert s3.secret_access_key not in message


def test_an_unreachable_server_is_retryable(no_retries, build_s3_settings, read):
    with pytest.raises(StorageUnavailableError, match=r"127\.0\.0\.1:9 does not answer") as caught:
        read(build_s3_settings(CLOSED, "bucket"))
    assert "FER_S3_ENDPOINT" in caught.value.hint


def test_a_server_that_is_not_an_s3_server_is_reported(no_retries, scripted, read):
    scripted.respond = lambda _: (404, b"<html><p>Not here</html>")

    with pytest.raises(StorageError, match="does not answer as an S3 server"):
        read(scripted.build_settings())


def test_denied_access_is_reported(no_retries, scripted, read):
    scripted.respond = lambda _: scripted.build_error(403, "AccessDenied")

    with pytest.raises(StorageError, match="denies access: AccessDenied"):
        read(scripted.build_settings())


def test_a_busy_server_is_retryable(no_retries, scripted, read):
    scripted.respond = lambda _: scripted.build_error(503, "SlowDown")

    with pytest.raises(StorageUnavailableError, match="busy or broken: 503"):
        read(scripted.build_settings())


def test_a_server_that_hangs_times_out(no_retries, scripted, read):
    release = threading.Event()
    scripted.respond = lambda _: release.wait(60) and None
    try:
        with pytest.raises(StorageUnavailableError, match=r"not answer: \w+TimeoutError"):
            read(scripted.build_settings(s3_timeout_s=0.3))
    finally:
        release.set()


@pytest.mark.parametrize(
    ("status", "code", "problem", "hint"),
    [
        (403, "InvalidAccessKeyId", "refuses the keys", "FER_S3_ACCESS_KEY_ID"),
        (403, "RequestTimeTooSkewed", "clock", "Set the clock"),
        (301, "PermanentRedirect", "another region", "FER_S3_REGION"),
        (405, "MethodNotAllowed", "405 MethodNotAllowed", "FER_S3_ENDPOINT"),
    ],
)
def test_other_refusals_have_a_hint(no_retries, scripted, status, code, problem, hint):
    scripted.respond = lambda _: scripted.build_error(status, code)

    with (
        BucketReader(scripted.build_settings()) as reader,
        pytest.raises(StorageError, match=problem) as caught,
    ):
        reader.check()
    assert hint in caught.value.hint


def test_expired_keys_are_retryable(no_retries, scripted, read):
    scripted.respond = lambda _: scripted.build_error(400, "ExpiredToken")

    with pytest.raises(StorageUnavailableError, match="keys have expired") as caught:
        read(scripted.build_settings())
    assert "FER_S3_ACCESS_KEY_ID" in caught.value.hint


@pytest.mark.parametrize(
    ("endpoint", "problem"),
    [
        ("nonsense", "'nonsense' is no endpoint"),
        (f"http://key:{SECRET}@127.0.0.1", "FER_S3_ENDPOINT holds a user name"),
    ],
)
def test_an_invalid_endpoint_setting_is_reported(build_s3_settings, endpoint, problem):
    with pytest.raises(ConfigurationError, match=problem) as caught:
        BucketReader(build_s3_settings(endpoint, "bucket"))
    assert SECRET not in str(caught.value)


# Keys


def test_without_keys_the_error_names_their_settings(build_s3_settings):
    with pytest.raises(StorageError, match=r"there are no keys.*FER_S3_ACCESS_KEY_ID"):
        BucketReader(build_s3_settings(CLOSED, "bucket", s3_access_key_id=None))


def test_the_default_credential_chain_is_used(monkeypatch, s3_settings, s3, image):
    s3.client.put_object(Bucket=s3.bucket, Key="a", Body=b"data")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_access_key)

    with BucketReader(s3_settings.model_copy(update={"s3_access_key_id": None})) as reader:
        assert [o.key for o in reader.list("")] == ["a"]
        assert [f.data for f in reader.fetch_many([image("a")])] == [b"data"]


def test_aws_variables_of_other_tools_change_nothing(monkeypatch, scripted, image, tmp_path):
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"):
        monkeypatch.setenv(name, CLOSED)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of someone else")
    monkeypatch.setenv("AWS_REGION", "elsewhere-1")
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "nowhere.pem"))
    monkeypatch.setenv("AWS_BUCKET", "other")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    for name in ("AWS_USE_DUALSTACK_ENDPOINT", "AWS_USE_FIPS_ENDPOINT"):
        monkeypatch.setenv(name, "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / name))
        (tmp_path / name).write_text("[this is no configuration")
    scripted.objects = {"a": b"data", "a//b": b"data"}

    with BucketReader(scripted.build_settings()) as reader:
        fetched = list(reader.fetch_many([image("a"), image("a//b")]))

    assert [f.data for f in fetched] == [b"data", b"data"]
    assert {client for _, client in scripted.requests} == {"object_store", "Boto3"}


def test_a_profile_that_does_not_exist_is_named_where_it_is_used(monkeypatch, build_s3_settings):
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")

    with pytest.raises(StorageError, match=r"no-such-profile.*Correct or unset AWS_PROFILE"):
        BucketReader(build_s3_settings(CLOSED, "bucket", s3_access_key_id=None))


def test_aws_ca_bundle_does_not_replace_the_usual_authorities(
    monkeypatch, no_retries, scripted_tls, certificates
):
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificates.ca))

    with (
        BucketReader(scripted_tls.build_settings()) as reader,
        pytest.raises(StorageError, match=r"TLS with .* failed.*FER_S3_CA_BUNDLE"),
    ):
        reader.check()


def test_a_facility_may_have_its_own_bucket_server_and_keys(s3, build_s3_settings, image):
    s3.client.put_object(Bucket=s3.bucket, Key="a", Body=b"data")
    harbour = facility(bucket=s3.bucket, endpoint=s3.endpoint, credentials="harbour")
    keys = {"access_key_id": s3.access_key_id, "secret_access_key": s3.secret_access_key}
    settings = build_s3_settings(CLOSED, "other", s3_credentials={"harbour": keys})

    with BucketReader(settings, harbour) as reader:
        assert [o.key for o in reader.list("")] == ["a"]
        assert [f.data for f in reader.fetch_many([image("a")])] == [b"data"]


def test_keys_that_are_named_but_not_set_are_reported(build_s3_settings):
    with pytest.raises(ConfigurationError, match="FER_S3_CREDENTIALS__HARBOUR__ACCESS_KEY_ID"):
        BucketReader(build_s3_settings(CLOSED, "other"), facility(credentials="harbour"))


def test_a_facilitys_own_bucket_is_named_in_errors(s3_settings):
    with (
        BucketReader(s3_settings, facility(bucket="no-such-one")) as reader,
        pytest.raises(StorageError, match=r"'no-such-one' .*\(facility harbour\)") as caught,
    ):
        reader.check()
    assert "the facility's `bucket`" in caught.value.hint


# Certificates and addresses


def test_a_private_certificate_authority_is_trusted_by_both_clients(
    scripted_tls, certificates, image
):
    scripted_tls.objects = {"a": b"data", "a//b": b"data"}

    with BucketReader(scripted_tls.build_settings(s3_ca_bundle=certificates.ca)) as reader:
        reader.check()
        fetched = list(reader.fetch_many([image("a"), image("a//b")]))

    assert [f.data for f in fetched] == [b"data", b"data"]
    assert {client for _, client in scripted_tls.requests} == {"object_store", "Boto3"}


def test_an_untrusted_certificate_is_reported(no_retries, scripted_tls, read):
    with pytest.raises(StorageError, match=r"TLS with .* failed.*FER_S3_CA_BUNDLE"):
        read(scripted_tls.build_settings())


def test_a_missing_ca_bundle_is_reported(tmp_path, build_s3_settings):
    with pytest.raises(ConfigurationError, match=r"nowhere\.pem does not exist"):
        BucketReader(
            build_s3_settings("https://x", "bucket", s3_ca_bundle=tmp_path / "nowhere.pem")
        )


@pytest.mark.parametrize(
    ("endpoint", "is_unencrypted"),
    [
        (None, False),
        ("https://s3.example.com", False),
        ("http://s3.example.com", True),
        ("HTTP://10.0.0.7:9000", True),
        ("http://127.0.0.2:9000", False),
        ("http://[::1]:9000", False),
        ("http://localhost:9000", False),
    ],
)
def test_an_endpoint_without_tls_must_be_allowed(build_s3_settings, endpoint, is_unencrypted):
    location = BucketLocation("bucket", endpoint)
    assert location.is_unencrypted is is_unencrypted
    Clients(build_s3_settings(endpoint, "bucket", s3_allow_http=True), location)
    if not is_unencrypted:
        Clients(build_s3_settings(endpoint, "bucket"), location)
        return
    with pytest.raises(ConfigurationError, match="has no TLS") as refused:
        Clients(build_s3_settings(endpoint, "bucket"), location)
    assert "FER_S3_ALLOW_HTTP=true" in refused.value.hint


@pytest.mark.parametrize("path_style", [True, False])
@pytest.mark.parametrize("bucket", ["bucket", "dotted.bucket", "Old_Bucket", "o" * 255])
@pytest.mark.parametrize(
    "endpoint",
    [None, "https://s3.example.com", "http://127.0.0.1:9000/", "http://s3:9000", "http://[::1]:9"],
)
def test_both_clients_use_the_same_address(build_s3_settings, path_style, bucket, endpoint):
    settings = build_s3_settings(
        endpoint,
        bucket,
        s3_path_style=path_style,
        s3_region="eu-central-1",
        s3_allow_http=True,
    )
    clients = Clients(settings, BucketLocation(bucket, endpoint))

    of_boto3 = clients.boto.generate_presigned_url(
        "get_object", Params={"Bucket": bucket, "Key": "a/b.jpg"}
    )
    of_obstore = obstore.sign(clients.obstore, "GET", "a/b.jpg", timedelta(minutes=1))

    assert urlsplit(of_boto3)[:3] == urlsplit(of_obstore)[:3]
