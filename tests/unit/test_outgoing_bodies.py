"""Bodies of answers: decoding with a limit, and what of them a job can keep."""

from __future__ import annotations

import gzip
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import JobError, TransientError
from app.domain.texts import is_storable
from app.security.outgoing.bodies import ResponseTooLargeError, capped, decoded
from app.security.outgoing.contents import content_of, storable_headers
from app.security.outgoing.faults import retry_after_s, unexpected_status

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@given(data=st.binary(max_size=2_000), repeat=st.integers(1, 300), size=st.integers(1, 5_000))
def test_a_compressed_body_is_what_was_compressed_however_it_is_cut(data: bytes, repeat: int, size: int) -> None:
    body = data * repeat

    files = b"".join(decoded(pieces(gzip.compress(body) + gzip.compress(data), size), "gzip"))
    deflated = b"".join(decoded(pieces(zlib.compress(body), size), "deflate"))

    assert files == body + data
    assert deflated == body


def test_a_bomb_is_inflated_no_further_than_it_is_taken() -> None:
    bomb = gzip.compress(bytes(50_000_000), compresslevel=1)
    taken: list[bytes] = []

    with pytest.raises(ResponseTooLargeError):
        taken.extend(capped(decoded([bomb], "gzip"), 100_000))

    assert [len(piece) for piece in taken] == [65_536, 34_464]


def test_a_compressed_body_that_ends_early_may_come_whole_later() -> None:
    body = gzip.compress(b"a,b\n" * 1_000)[:-9]

    with pytest.raises(TransientError, match="ended early"):
        list(decoded([body], "gzip"))


@pytest.mark.parametrize(("coding", "code"), [("br", "http.encoding_unsupported"), ("gzip", "http.encoding_invalid")])
def test_a_body_in_another_coding_is_refused(coding: str, code: str) -> None:
    with pytest.raises(JobError) as caught:
        list(decoded([b"plain"], coding))

    assert caught.value.code == code


def test_a_body_of_exactly_the_limit_is_taken() -> None:
    assert list(capped([b"ab", b"cd"], 4)) == [b"ab", b"cd"]


def test_json_is_parsed() -> None:
    content = content_of(b'{"a": [1, null]}', "application/problem+json; charset=utf-8")

    assert (content.value, content.encoding) == ({"a": [1, None]}, "json")


@pytest.mark.parametrize(
    "text",
    ['{"a": "\\u0000"}', '{"\\ud800": 1}', "[NaN]", "[1e999]", "{", "[" * 100 + "]" * 100, "[" * 50_000],
    ids=["nul", "surrogate", "nan", "infinite", "broken", "deep", "very deep"],
)
def test_json_that_cannot_be_kept_stays_text(text: str) -> None:
    content = content_of(text.encode(), "application/json")

    assert (content.value, content.encoding) == (text, "text")


@given(
    data=st.binary(max_size=200), charset=st.sampled_from(["utf-8", "utf-16", "latin-1", "gbk", "zlib", "idna", "?"])
)
def test_whatever_comes_can_be_kept(data: bytes, charset: str) -> None:
    content = content_of(data, f"text/plain; charset={charset}")

    assert is_storable(content.value)


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n", b"a\0b"])
def test_bytes_that_are_no_text_are_kept_in_base64_and_said_to_be(data: bytes) -> None:
    content = content_of(data, "text/plain")

    assert content.encoding == "base64"
    assert content.value == {b"\x89PNG\r\n\x1a\n": "iVBORw0KGgo=", b"a\0b": "YQBi"}[data]


def test_a_cut_through_a_character_leaves_text() -> None:
    content = content_of("käse".encode()[:2], "text/plain", is_truncated=True)

    assert (content.value, content.encoding, content.is_truncated) == ("k", "text", True)


def test_the_charset_that_is_named_is_used() -> None:
    assert content_of(b"k\xe4se", 'text/plain; Charset="ISO-8859-1"').value == "käse"


def test_of_the_headers_none_that_may_be_a_secret_is_kept() -> None:
    kept = storable_headers({"Set-Cookie": "s=1", "Authorization": "x", "ETag": '"1"', "Server": "a\0b"})

    assert kept == {"etag": '"1"', "server": "a\\0b"}


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        (None, None),
        ("120", 120.0),
        (" 0 ", 0.0),
        ("9" * 400, 86_400.0),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0.0),
        ("soon", None),
        ("-5", None),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
    ],
)
def test_a_receivers_wish_to_wait_is_read_in_both_forms(value: str | None, wait_s: float | None) -> None:
    assert retry_after_s(value, now=NOW) == wait_s


@pytest.mark.parametrize(("status", "may_pass"), [(500, True), (503, True), (429, True), (408, True), (404, False)])
def test_a_status_that_may_pass_is_tried_again(status: int, may_pass: bool) -> None:
    error = unexpected_status(status, {"Retry-After": "7"}, now=NOW)

    assert isinstance(error, TransientError) == may_pass
    assert getattr(error, "retry_after_s", 7.0) == 7.0
