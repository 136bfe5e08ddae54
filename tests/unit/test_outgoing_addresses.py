"""Which URLs and addresses an outgoing call may reach; nothing is dialled here."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import NoReturn

import pytest

from app.domain.errors import JobError, TransientError
from app.security.outgoing.addresses import Address, is_this_machine, plain, refusal
from app.security.outgoing.calls import Call
from app.security.outgoing.guard import Outgoing
from app.security.outgoing.line import Line
from app.security.outgoing.targets import parse_target
from config.settings import Settings, SettingsError, explain, from_env

PUBLIC = "93.184.216.34"

NOT_PUBLIC = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "192.88.99.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::7f00:1",
    "2002:7f00:1::",
    "2001:0:7f00:1::",
    "fe80::1",
    "fec0::1",
    "fd00:ec2::254",
    "ff02::1",
    "ff0e::1",
]


@pytest.fixture(autouse=True)
def no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that would dial fails."""

    def dial(self: Line, addresses: Sequence[Address], port: int) -> NoReturn:
        raise AssertionError(f"dialled {addresses} port {port}")

    monkeypatch.setattr(Line, "dial", dial)


def no_names(host: str, port: int) -> NoReturn:
    raise AssertionError(f"looked up {host}")


def refused(outgoing: Outgoing, url: str) -> JobError:
    with pytest.raises(JobError) as caught, outgoing.send(Call("GET", url)):
        pass
    return caught.value


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_that_is_not_public_is_forbidden_and_never_retried(address: str) -> None:
    host = f"[{address}]" if ":" in address else address

    error = refused(Outgoing(resolve=no_names), f"http://{host}/")

    assert error.code == "ERR_URL_FORBIDDEN"
    assert not isinstance(error, TransientError)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_a_name_with_one_address_that_is_not_public_is_forbidden(address: str) -> None:
    outgoing = Outgoing(resolve=lambda host, port: [ip_address(PUBLIC), ip_address(address)])

    error = refused(outgoing, "https://mixed.test/")

    assert error.code == "ERR_URL_FORBIDDEN"
    assert "mixed.test" in error.detail


@pytest.mark.parametrize(
    "host",
    ["2130706433", "0x7f.1", "0x7f000001", "0177.0.0.1", "017700000001", "127.1", "0", "127.0.0.1.", "１２７.１"],
)
def test_an_address_in_an_unusual_form_is_forbidden_before_any_name_is_looked_up(host: str) -> None:
    error = refused(Outgoing(resolve=no_names), f"http://{host}/")

    assert error.code == "ERR_URL_FORBIDDEN"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "//example.com/",
        "example.com",
        "",
        "http://",
        "http:///path",
        "http://example.com:0/",
        "http://example.com:99999/",
        "http://example.com:x/",
        "http://exa mple.com/",
        "http://example.com\\@127.0.0.1/",
        "http://example.com/\r\nHost: other",
        "http://[fe80::1%25eth0]/",
        "http://[::1",
        "http://a..b/",
        f"http://{'a' * 64}.com/",
        f"http://example.com/{'a' * 8192}",
    ],
)
def test_what_is_no_plain_http_url_is_forbidden(url: str) -> None:
    error = refused(Outgoing(resolve=no_names), url)

    assert error.code == "ERR_URL_FORBIDDEN"


@pytest.mark.parametrize("port", [22, 25, 5432, 6379, 8604])
def test_a_port_that_is_not_for_http_is_forbidden_until_it_is_named(port: int) -> None:
    url = f"http://{PUBLIC}:{port}/"

    error = refused(Outgoing(), url)
    named = Outgoing(ports=frozenset({port}))

    assert error.code == "ERR_URL_FORBIDDEN"
    assert error.hint is not None
    assert "HAULIER_OUTGOING_PORTS" in error.hint
    with pytest.raises(AssertionError, match="dialled"), named.send(Call("GET", url)):
        pass


def test_a_public_address_is_dialled() -> None:
    outgoing = Outgoing(resolve=lambda host, port: [ip_address(PUBLIC)])

    with (
        pytest.raises(AssertionError, match=f"dialled .*{PUBLIC}.* port 443"),
        outgoing.send(Call("GET", "https://public.test/")),
    ):
        pass


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111"])
def test_a_public_address_is_allowed(address: str) -> None:
    reason = refusal(ip_address(address), [])

    assert reason is None


def test_the_allow_list_opens_what_it_names_and_nothing_else() -> None:
    allowed = [ip_network("127.0.0.1/32"), ip_network("10.5.0.0/16"), ip_network("fd00:1::/64")]

    named = [refusal(ip_address(one), allowed) for one in ("127.0.0.1", "10.5.9.9", "fd00:1::7")]
    others = [refusal(ip_address(one), allowed) for one in ("127.0.0.2", "10.6.0.1", "fd00:2::7", "::1", "::127.0.0.1")]

    assert named == [None] * 3
    assert None not in others


def test_an_ipv4_address_written_as_ipv6_is_judged_as_what_it_is() -> None:
    address = plain(ip_address("::ffff:127.0.0.1"))

    assert address == ip_address("127.0.0.1")
    assert refusal(address, [ip_network("127.0.0.0/8")]) is None


def test_an_address_of_our_own_interfaces_is_refused_although_it_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.security.outgoing.addresses.is_this_machine", lambda address: True)

    reason = refusal(ip_address(PUBLIC), [])

    assert reason == f"{PUBLIC} is this machine"


def test_the_machine_knows_its_own_address() -> None:
    assert is_this_machine(ip_address("127.0.0.1"))
    assert not is_this_machine(ip_address("198.51.100.7"))


def test_a_name_that_does_not_resolve_may_do_so_later() -> None:
    def resolve(host: str, port: int) -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    error = refused(Outgoing(resolve=resolve), "https://nowhere.test/")

    assert isinstance(error, TransientError)
    assert error.code == "http.unresolved"


def test_the_told_part_of_a_url_holds_no_secret() -> None:
    target = parse_target("https://user:secret@Example.COM/hooks/secret?token=secret#secret")

    assert target.origin == "https://example.com:443"
    assert (target.host, target.port) == ("example.com", 443)


def test_a_name_in_another_script_is_looked_up_in_ascii() -> None:
    assert parse_target("http://bücher.example/").host == "xn--bcher-kva.example"


def test_the_settings_name_networks_and_ports() -> None:
    environ = {"HAULIER_OUTGOING_PORTS": "9000, 9001", "HAULIER_ALLOW_PRIVATE_HOSTS": "10.0.0.0/8"}

    settings = from_env(environ, env_file=None)

    assert settings.outgoing_ports == {9000, 9001}
    assert settings.private_networks == (ip_network("10.0.0.0/8"),)
    assert "9000,9001" in [one.value for one in explain(environ, env_file=None)]


@pytest.mark.parametrize("ports", ["0", "65536", "http"])
def test_a_port_that_is_none_is_named_at_the_start(ports: str) -> None:
    with pytest.raises(SettingsError, match="HAULIER_OUTGOING_PORTS"):
        from_env({"HAULIER_OUTGOING_PORTS": ports}, env_file=None)


def test_no_private_network_is_open_by_default() -> None:
    error = refused(Outgoing.from_settings(Settings()), "http://127.0.0.1:8080/")

    assert error.code == "ERR_URL_FORBIDDEN"
