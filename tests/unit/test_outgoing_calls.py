"""Outgoing calls to servers on loopback that mean no good."""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from app.domain.errors import JobError, TransientError
from app.security.outgoing.addresses import Address
from app.security.outgoing.bodies import ResponseTooLargeError
from app.security.outgoing.calls import Call
from app.security.outgoing.guard import Outgoing
from tests.loopback import Loopback, answering, endless, servers

Start = Callable[..., Loopback]


class Names:
    """A name server that answers from a list, another entry each time it is asked; the last one stays."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = [[ip_address(one) for one in answer] for answer in answers]
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> list[Address]:
        self.asked.append(host)
        return self.answers[min(len(self.asked), len(self.answers)) - 1]


@pytest.fixture
def start() -> Iterator[Start]:
    with servers() as starting:
        yield starting


def to(*reached: Loopback, names: Names | None = None, allowed: str = "127.0.0.1/32") -> Outgoing:
    """A guard that lets calls through to these servers."""
    return Outgoing(
        private_networks=[ip_network(allowed)],
        ports=frozenset(server.port for server in reached),
        resolve=names or Names(["127.0.0.1"]),
    )


def answer_of(outgoing: Outgoing, call: Call) -> tuple[int, bytes]:
    with outgoing.send(call) as reply:
        return reply.status, b"".join(reply.chunks())


def failure_of(outgoing: Outgoing, call: Call) -> JobError:
    with pytest.raises(JobError) as caught:
        answer_of(outgoing, call)
    return caught.value


def test_a_call_arrives_as_it_was_made(start: Start) -> None:
    server = start(answering(b"hello", 201))
    url = server.url("/a?b=c", host="api.test")

    status, body = answer_of(to(server), Call("POST", url, {"X-Trace": "7"}, b"body"))

    (seen,) = server.seen
    assert (status, body) == (201, b"hello")
    assert (seen.method, seen.path, seen.body) == ("POST", "/a?b=c", b"body")
    assert seen.headers["x-trace"] == "7"
    assert seen.headers["host"] == f"api.test:{server.port}"


def test_a_name_is_resolved_once_and_its_answer_is_what_is_dialled(start: Start) -> None:
    server = start(answering(b"pinned"))
    names = Names(["127.0.0.1"], ["127.0.0.2"])

    _, body = answer_of(to(server, names=names), Call("GET", server.url(host="rebinds.test")))

    assert body == b"pinned"
    assert names.asked == ["rebinds.test"]


def test_the_second_answer_of_a_name_that_rebinds_is_checked_too(start: Start) -> None:
    server = start(answering(b"inside"))
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    outgoing = to(server, names=names)
    answer_of(outgoing, Call("GET", server.url(host="rebinds.test")))

    error = failure_of(outgoing, Call("GET", server.url(host="rebinds.test")))

    assert error.code == "ERR_URL_FORBIDDEN"
    assert len(server.seen) == 1


def test_the_next_checked_address_is_dialled_when_the_first_does_not_answer(start: Start) -> None:
    server = start(answering(b"second"))
    names = Names(["127.0.0.9", "127.0.0.1"])

    _, body = answer_of(to(server, names=names, allowed="127.0.0.0/8"), Call("GET", server.url(host="two.test")))

    assert body == b"second"


def test_an_ipv4_address_written_as_ipv6_is_opened_by_its_ipv4_network(start: Start) -> None:
    server = start(answering(b"mapped"))
    names = Names(["::ffff:127.0.0.1"])

    _, body = answer_of(to(server, names=names), Call("GET", server.url(host="mapped.test")))

    assert body == b"mapped"


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_proxies_of_the_environment_are_not_used(start: Start, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    proxy, server = start(answering(b"through the proxy")), start(answering(b"direct"))
    monkeypatch.setenv(name, proxy.url())
    monkeypatch.setenv("NO_PROXY", "")

    _, body = answer_of(to(server), Call("GET", server.url(host="api.test")))

    assert body == b"direct"
    assert proxy.seen == []


def test_credentials_of_a_netrc_are_not_sent(start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = start(answering())
    (tmp_path / ".netrc").write_text("machine api.test login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))

    answer_of(to(server), Call("GET", server.url(host="api.test")))

    assert "authorization" not in server.seen[0].headers


def test_a_redirect_is_an_answer_and_its_body_is_not_read_unasked(start: Start) -> None:
    head = b"HTTP/1.0 302 Found\r\nLocation: http://127.0.0.2/\r\n\r\n"
    server = start(endless(b"x" * 65_536, head=head))

    with to(server).send(Call("GET", server.url())) as reply:
        status = reply.status

    assert status == 302


def test_a_redirect_that_may_be_followed_is_checked_like_the_first_url(start: Start) -> None:
    inside = start(answering(b"SECRET"))
    server = start(answering(status=302, location=inside.url(host="127.0.0.2")))

    error = failure_of(to(server, inside), Call("GET", server.url(), max_redirects=5))

    assert error.code == "ERR_URL_FORBIDDEN"
    assert inside.seen == []


def test_a_redirect_by_name_to_loopback_is_forbidden(start: Start) -> None:
    inside = start(answering(b"SECRET"))
    server = start(answering(status=307, location=inside.url(host="inside.test")))
    names = Names(["127.0.0.1"], ["::1"])

    error = failure_of(to(server, inside, names=names), Call("GET", server.url(host="out.test"), max_redirects=5))

    assert error.code == "ERR_URL_FORBIDDEN"
    assert inside.seen == []


def test_a_redirect_to_another_scheme_is_forbidden(start: Start) -> None:
    server = start(answering(status=302, location="file:///etc/passwd"))

    error = failure_of(to(server), Call("GET", server.url(), max_redirects=5))

    assert error.code == "ERR_URL_FORBIDDEN"


def test_a_followed_redirect_takes_no_secret_to_another_origin(start: Start) -> None:
    other = start(answering(b"there"))
    server = start(answering(status=302, location=other.url("/there")))
    headers = {"Authorization": "Bearer secret", "X-Api-Key": "secret", "Idempotency-Key": "1"}

    _, body = answer_of(to(server, other), Call("POST", server.url(), headers, b"body", max_redirects=1))

    (seen,) = other.seen
    assert body == b"there"
    assert (seen.method, seen.body, seen.headers["idempotency-key"]) == ("GET", b"", "1")
    assert "secret" not in str(seen.headers)


def test_a_307_repeats_the_request(start: Start) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        answering(b"kept" if handler.path == "/new" else b"", 200 if handler.path == "/new" else 307, location="/new")(
            handler
        )

    server = start(answer)

    _, body = answer_of(to(server), Call("PUT", server.url("/old"), {"X-Api-Key": "k"}, b"body", max_redirects=1))

    assert body == b"kept"
    assert [(seen.method, seen.body, seen.headers["x-api-key"]) for seen in server.seen] == [("PUT", b"body", "k")] * 2


def test_a_circle_of_redirects_ends(start: Start) -> None:
    server = start(answering(status=302, location="/again"))

    error = failure_of(to(server), Call("GET", server.url(), max_redirects=3))

    assert error.code == "http.redirects"
    assert len(server.seen) == 4


@pytest.mark.parametrize(
    "drip",
    [
        endless(b"x", 0.05),
        endless(b"x", 0.05, head=b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"),
        endless(b"X-A: b\r\n", 0.05, head=b"HTTP/1.1 200 OK\r\n"),
        endless(b"HTTP/1.1 100 Continue\r\n\r\n", 0.05, head=b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["body", "body of known length", "headers", "continue"],
)
def test_a_slow_drip_ends_with_the_calls_time(start: Start, drip: Callable[[BaseHTTPRequestHandler], None]) -> None:
    server = start(drip)

    error = failure_of(to(server), Call("GET", server.url(), timeout_s=0.4, max_response_bytes=100_000))

    assert isinstance(error, TransientError)
    assert error.code == "http.timeout"


def test_a_server_that_says_nothing_is_given_up(start: Start) -> None:
    silence = threading.Event()
    server = start(lambda handler: silence.wait(5))

    error = failure_of(to(server), Call("GET", server.url(), timeout_s=0.3))
    silence.set()

    assert (error.code, isinstance(error, TransientError)) == ("http.timeout", True)


def test_a_name_server_that_hangs_is_given_up() -> None:
    answered = threading.Event()

    def resolve(host: str, port: int) -> list[Address]:
        answered.wait(5)
        return []

    error = failure_of(Outgoing(resolve=resolve), Call("GET", "https://slow.test/", timeout_s=0.3))
    answered.set()

    assert (error.code, isinstance(error, TransientError)) == ("http.timeout", True)


def test_a_handshake_that_hangs_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        outgoing = Outgoing(private_networks=[ip_network("127.0.0.0/8")], ports=frozenset({port}))

        error = failure_of(outgoing, Call("GET", f"https://127.0.0.1:{port}/", timeout_s=0.3))

    assert (error.code, isinstance(error, TransientError)) == ("http.timeout", True)


def test_an_endless_body_ends_at_the_limit(start: Start) -> None:
    server = start(endless(b"x" * 65_536))
    taken: list[bytes] = []

    call = Call("GET", server.url(), max_response_bytes=100_000)
    with to(server).send(call) as reply, pytest.raises(ResponseTooLargeError):
        taken.extend(reply.chunks())

    assert sum(map(len, taken)) == 100_000


def test_a_gzip_bomb_ends_at_the_limit(start: Start) -> None:
    server = start(answering(gzip.compress(bytes(50_000_000), compresslevel=1), content_encoding="gzip"))

    error = failure_of(to(server), Call("GET", server.url(), max_response_bytes=1_000_000))

    assert error.code == "http.response_too_large"


def test_a_compressed_answer_is_decompressed(start: Start) -> None:
    server = start(answering(gzip.compress(b"rows"), content_encoding="gzip"))

    _, body = answer_of(to(server), Call("GET", server.url()))

    assert body == b"rows"
    assert server.seen[0].headers["accept-encoding"] == "gzip"


def test_a_body_shorter_than_promised_is_not_taken_for_whole(start: Start) -> None:
    server = start(answering(b"half", content_length="8"))

    error = failure_of(to(server), Call("GET", server.url()))

    assert (error.code, isinstance(error, TransientError)) == ("http.connection_failed", True)


def test_a_failure_tells_no_secret_of_the_url() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    outgoing = Outgoing(private_networks=[ip_network("127.0.0.0/8")], ports=frozenset({port}))

    error = failure_of(outgoing, Call("GET", f"http://user:secret@127.0.0.1:{port}/secret?token=secret"))

    assert (error.code, isinstance(error, TransientError)) == ("http.connection_failed", True)
    assert error.__cause__ is None
    assert "secret" not in error.detail
    assert f"http://127.0.0.1:{port}" in error.detail


def test_a_refused_url_is_logged_without_its_secrets(caplog: pytest.LogCaptureFixture) -> None:
    failure_of(Outgoing(), Call("GET", "http://user:secret@169.254.169.254/secret"))

    (line,) = [record for record in caplog.records if record.message == "outgoing.refused"]
    assert "169.254.169.254" in line.__dict__["error"]
    assert "secret" not in str(line.__dict__)


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's TLS with a certificate for ``api.test``, from an authority that is trusted in this test."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "api.test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("api.test")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    chain, private = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(chain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, private)
    return context


def test_tls_asks_for_the_name_and_verifies_it_although_an_address_is_dialled(
    start: Start, authority: ssl.SSLContext
) -> None:
    asked: list[str | None] = []
    authority.sni_callback = lambda connection, name, context: asked.append(name)
    server = start(answering(b"safe"), tls=authority)

    _, body = answer_of(to(server), Call("GET", server.url(host="api.test", scheme="https")))

    assert body == b"safe"
    assert asked == ["api.test"]


def test_a_private_authority_that_is_named_is_trusted(
    start: Start, authority: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    server = start(answering(b"safe"), tls=authority)
    call = Call("GET", server.url(host="api.test", scheme="https"))
    networks, ports = [ip_network("127.0.0.1/32")], frozenset({server.port})
    trusting = Outgoing(
        private_networks=networks, ports=ports, resolve=Names(["127.0.0.1"]), ca_file=tmp_path / "chain.pem"
    )

    refused, (_, body) = failure_of(to(server), call), answer_of(trusting, call)

    assert (refused.code, body) == ("http.certificate_refused", b"safe")


def test_a_certificate_for_another_name_is_refused_for_good(start: Start, authority: ssl.SSLContext) -> None:
    server = start(answering(b"not it"), tls=authority)

    error = failure_of(to(server), Call("GET", server.url(host="other.test", scheme="https")))

    assert (error.code, isinstance(error, TransientError)) == ("http.certificate_refused", False)
    assert server.seen == []


def test_a_redirect_from_https_to_http_is_forbidden(start: Start, authority: ssl.SSLContext) -> None:
    plain = start(answering(b"in the clear"))
    server = start(answering(status=302, location=plain.url()), tls=authority)

    error = failure_of(to(server, plain), Call("GET", server.url(host="api.test", scheme="https"), max_redirects=1))

    assert error.code == "ERR_URL_FORBIDDEN"
    assert plain.seen == []
