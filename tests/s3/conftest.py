"""S3 servers for tests of what SeaweedFS does not do: moto, and one that a test scripts."""

import hashlib
import ssl
import threading
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import unquote

import pytest
import sqlalchemy as sa
from moto.server import ThreadedMotoServer

from fer_batch import database, ledger, listing
from fer_batch import s3 as s3_module
from fer_batch.records import Batch, Image
from fer_batch.registry import Facility, Permission
from fer_batch.settings import Settings
from tests.support.certificates import write_certificates

SECRET = "very-secret-key"
DAY = date(2026, 3, 9)
NOW = datetime(2026, 3, 10, 3, tzinfo=UTC)


def settings_of(endpoint, bucket, **others):
    return Settings(
        _env_file=None,
        **{
            "s3_endpoint": endpoint,
            "s3_bucket": bucket,
            "s3_access_key_id": "key",
            "s3_secret_access_key": SECRET,
            "s3_concurrency": 8,
            "s3_timeout_s": 10,
        }
        | others,
    )


@pytest.fixture(name="settings_of", scope="session")
def settings_of_fixture():
    """Settings that lead to an endpoint and a bucket."""
    return settings_of


@pytest.fixture
def s3_settings(s3):
    """Settings that lead to a fresh bucket on SeaweedFS."""
    return settings_of(
        s3.endpoint,
        s3.bucket,
        s3_access_key_id=s3.access_key_id,
        s3_secret_access_key=s3.secret_access_key,
    )


@pytest.fixture(scope="session")
def image():
    """An image as a listing would name it."""

    def made(key, data=b"data"):
        etag = hashlib.md5(data).hexdigest()  # noqa: S324
        return Image(Batch("mall", date(2026, 3, 9)), key, etag, len(data))

    return made


def facility(facility_id, valid_until=date(2026, 12, 31), **fields):
    permission = Permission(
        purpose="Satisfaction",
        lawful_basis="Art. 6(1)(a) GDPR",
        approved_by="Data protection officer",
        valid_until=valid_until,
    )
    return Facility(
        **{
            "facility_id": facility_id,
            "name": facility_id,
            "time_zone": "Europe/Berlin",
            "image_kind": "crops",
            "permission": permission,
        }
        | fields
    )


class Lists:
    """Lists batches of some facilities into a database of the test's own."""

    def __init__(self, settings):
        self.settings = settings
        self.engine = database.engine(settings)

    def __call__(self, *facilities, days=(DAY,), now=NOW):
        known = {f.facility_id: f for f in facilities}
        with self.engine.begin() as connection:
            ledger.sync_facilities(connection, known)
        batches = [Batch(name, day) for day in days for name in known]
        return listing.list_batches(self.engine, self.settings, known, batches, "run-1", now)

    def rows(self, query):
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sa.text(query))]

    def images(self):
        return self.rows("select facility_id, image_key, size_bytes from fer.image order by 1, 2")

    def batches(self):
        return self.rows(
            "select facility_id, capture_day, status, reason, images_listed, bytes_listed,"
            " listed_at, attempted_at, run_id from fer.batch order by 1, 2"
        )


@pytest.fixture
def lists(stack_settings):
    lists = Lists(stack_settings)
    yield lists
    lists.engine.dispose()


@pytest.fixture
def put(s3):
    def put_objects(*keys, data=b"data"):
        for key in keys:
            s3.client.put_object(Bucket=s3.bucket, Key=key, Body=data)

    return put_objects


@pytest.fixture
def one_attempt(monkeypatch):
    """Without the waits between attempts, and before a listing looks again."""
    monkeypatch.setattr(s3_module, "ATTEMPTS", 1)
    monkeypatch.setattr(listing, "WAITS_S", ())


@pytest.fixture(scope="session")
def moto():
    """URL of moto's server, which keeps keys that SeaweedFS changes, and checks no signature."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


class Scripted(ThreadingHTTPServer):
    """A server that brings `objects` out of `bucket`, and otherwise what a test says.

    `answer(key)` gives a status and a body instead of the object; the key of a listing is "".
    `requests` holds the key and the client of each request. If-Match is ignored.
    """

    daemon_threads = True

    def __init__(self, certificate=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects = {}
        self.answer = lambda _: None
        self.requests = []
        scheme = "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)
            scheme = "https"
        self.endpoint = f"{scheme}://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def settings(self, **others):
        return settings_of(self.endpoint, "bucket", **others)

    def handle_error(self, request, client_address):
        """A client that does not trust the certificate hangs up; that is no news."""

    @staticmethod
    def error(status, code):
        return status, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()

    @staticmethod
    def listing(*keys, is_truncated=False, token=""):
        contents = "".join(
            f"<Contents><Key>{key}</Key><ETag>&quot;0&quot;</ETag><Size>4</Size>"
            "<LastModified>2026-03-09T12:00:00Z</LastModified></Contents>"
            for key in keys
        )
        more = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
        page = (
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<EncodingType>url</EncodingType><IsTruncated>{str(is_truncated).lower()}"
            f"</IsTruncated>{more}{contents}</ListBucketResult>"
        )
        return 200, page.encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        key = unquote(self.path.partition("?")[0]).removeprefix("/bucket").removeprefix("/")
        client = self.headers["User-Agent"].partition("/")[0]
        self.server.requests.append((key, client))
        status, body = self.server.answer(key) or self._object(key)
        self.send_response(status)
        self.send_header("Content-Length", len(body))
        self.send_header("ETag", f'"{hashlib.md5(body).hexdigest()}"')  # noqa: S324
        self.send_header("Last-Modified", "Mon, 09 Mar 2026 12:00:00 GMT")
        self.end_headers()
        self.wfile.write(body)

    def _object(self, key):
        if key == "":
            return Scripted.listing()
        if key not in self.server.objects:
            return Scripted.error(404, "NoSuchKey")
        return 200, self.server.objects[key]

    def log_message(self, *args):
        pass


@pytest.fixture
def scripted():
    server = Scripted()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def scripted_tls(certificates):
    server = Scripted(certificates.server)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    ca, server = write_certificates(tmp_path_factory.mktemp("certificates"))
    return SimpleNamespace(ca=ca, server=server)
