"""What is of others is shown without moving a cursor and without a secret, and read without waiting for ever."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from http.client import HTTPConnection
from pathlib import Path

import pytest
from front import run
from hypothesis import given
from hypothesis import strategies as st

from tgi_advisor import reading
from tgi_advisor.deadline import Deadline, keep
from tgi_advisor.errors import AdvisorError, Place, Problem
from tgi_advisor.safe import LONGEST, looks_secret, masked, named, printable

OBEYED = "\x00\x07\x08\x1b\x7f\x85\x9b\u061c\u200e\u200f\u2028\u2029\u202a\u202e\u2066\u2069\udc9b\r"
"""Of each kind that a terminal, or whoever lays out its lines, would obey."""


def test_each_character_that_would_be_obeyed_is_written_out() -> None:
    assert printable("a\x1b[31mb\u202ec\nd\x9be") == r"a\x1b[31mb\u202ec\nd\x9be"
    assert printable("a\tb\nc\rd", keep="\n\t") == "a\tb\nc\\rd"
    assert printable("größer, 模型, 👍") == "größer, 模型, 👍"
    for character in OBEYED:
        assert printable(character).isascii()
        assert printable(character).isprintable()


@given(st.text(st.sampled_from(OBEYED + "ab\n\t") | st.characters()))
def test_what_is_printable_stays_and_nothing_is_obeyed(text: str) -> None:
    told = printable(text)
    assert not set(told) & set(OBEYED + "\n\t")
    assert printable(told) == told
    if text.isprintable():
        assert told == text


def test_every_error_is_made_printable() -> None:
    error = AdvisorError("a\x1b]0;x\x07", "b\u202e", [Problem("c\x9b", "d\r", Place("e\x1bf", 1, 2))])
    assert str(error) == "a\\x1b]0;x\\x07\ne\\x1bf:1:2: c\\x9b\n    d\\r\nb\\u202e"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("hf_abcdefghij and more", "*** and more"),
        ("api_org_abcdefghij", "***"),
        ("git clone https://me:pass@host/x", "git clone https://***@host/x"),
        ("https://me:p@ss:w@host/x", "https://***@host/x"),
        ("https://:pass@host", "https://***@host"),
        ("https://host:80/a@b:c", "https://host:80/a@b:c"),
        ("https://me@host/x", "https://me@host/x"),
        ("hf_short", "hf_short"),
        ("a://b:c@d://e:f@g", "a://***@d://***@g"),
    ],
)
def test_secrets_are_masked(text: str, shown: str) -> None:
    assert masked(text) == shown
    assert looks_secret(text) == (shown != text)


@pytest.mark.parametrize("piece", ["://a:b", "://", ":a", "hf_", "://a:b@", "@://:", "hf_a", "a@b:", "://a@:"])
def test_masking_takes_time_in_proportion(piece: str) -> None:
    started = time.process_time()
    masked(piece * (1_000_000 // len(piece)) + "@" * 1000)
    assert time.process_time() - started < 2


def test_a_name_is_cut_after_it_was_masked() -> None:
    assert named("x" * (LONGEST - 6) + "hf_" + "a" * 40) == "x" * (LONGEST - 6) + "***"
    assert len(named("x" * 10_000)) == LONGEST


# ---- files ----


def test_special_files_are_neither_opened_nor_waited_for(tmp_path: Path) -> None:
    pipe, listens = tmp_path / "pipe", tmp_path / "socket"
    os.mkfifo(pipe)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(listens))
        for path, what in ((pipe, "a pipe"), (listens, "a socket"), (tmp_path, "a folder"), ("/dev/zero", "a device")):
            with pytest.raises(OSError, match=what):
                reading.read_regular(path, 100)
    assert reading.read_regular("/dev/null", 100) == b""


def test_a_regular_file_is_read_to_one_byte_past_the_bound(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 100)
    assert reading.read_regular(file, 100) == b"x" * 100
    assert len(reading.read_regular(str(file), 10)) == 11


@pytest.mark.skipif(not os.access("/proc/self/status", os.R_OK), reason="no /proc")
def test_a_file_without_a_size_is_read(tmp_path: Path) -> None:
    assert reading.read_regular("/proc/self/status", 1 << 20).startswith(b"Name:")
    assert len(reading.read_regular("/proc/self/status", 3)) == 4


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="no /dev/fd")  # noqa: PTH112
def test_a_pipe_of_the_shell_is_read_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PIPE_S", 0.1)
    out, into = os.pipe()
    try:
        os.write(into, b"abc")
        with pytest.raises(OSError, match="end within"):
            reading.read_named(f"/dev/fd/{out}", 100)
        os.write(into, b"abc")
        os.close(into)
        assert reading.read_named(f"/dev/fd/{out}", 100) == b"abc"
    finally:
        os.close(out)


# ---- deadlines ----


def _drip(text: bytes, pause: float) -> int:
    """The port of a server that answers once, a byte at a time."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with listener, listener.accept()[0] as peer:
            peer.recv(1 << 16)
            try:
                for number in range(len(text)):
                    peer.sendall(text[number : number + 1])
                    time.sleep(pause)
            except OSError:
                return

    threading.Thread(target=answer, daemon=True).start()
    return int(listener.getsockname()[1])


@pytest.mark.parametrize(
    "text",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n" + b"x" * 200,
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 60,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 20,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 60,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 200,
    ],
    ids=["body", "fields", "interim", "chunks", "unsized"],
)
def test_a_drip_does_not_outlast_the_deadline(text: bytes) -> None:
    connection = HTTPConnection("127.0.0.1", _drip(text, 0.01))
    started = time.monotonic()
    keep(connection, Deadline(0.4))
    with pytest.raises(TimeoutError):  # noqa: PT012
        connection.request("GET", "/")
        connection.getresponse().read()
    connection.close()
    assert time.monotonic() - started < 2


def test_within_the_deadline_nothing_changes() -> None:
    text = b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"a": 1}\n'
    connection = HTTPConnection("127.0.0.1", _drip(text, 0))
    keep(connection, Deadline(20))
    connection.request("GET", "/")
    assert json.loads(connection.getresponse().read()) == {"a": 1}
    connection.close()


def test_a_path_with_escapes_moves_no_cursor() -> None:
    ran = run("advise", "./no\x1b[2Jsuch\u202e.yaml")
    assert ran.code == 3
    assert not set(ran.err) & set(OBEYED)
