from __future__ import annotations

import hashlib
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hub.conftest import FAST, HURRIED
from hub.hub_server import Answer, HubServer, serve
from msport.errors import HubError
from msport.hub import Network
from msport.hub.limits import Attempts, TransientError, parse_retry_after
from msport.hub.listing import Hub, RemoteFile
from msport.hub.transport import Transport

NAME = "model.safetensors"
CONTENT = random.Random(0).randbytes(1 << 20)
BEGIN, END = 1000, 1_000_001
TOKEN = {"Authorization": "Bearer secret"}


@pytest.fixture
def server() -> Iterator[HubServer]:
    with serve({NAME: CONTENT}) as server:
        yield server


@pytest.fixture
def cdn(server: HubServer) -> Iterator[HubServer]:
    with serve({NAME: CONTENT}) as cdn:
        server.cdn = cdn
        yield cdn


def remote_file(server: HubServer) -> RemoteFile:
    url = f"{server.url}/org/model/resolve/main/{NAME}"
    return RemoteFile("org/model", NAME, len(CONTENT), url, sha256=hashlib.sha256(CONTENT).hexdigest())


def open_transport(server: HubServer, network: Network = FAST) -> Transport:
    return Transport(Hub(server.url, TOKEN, lambda status, _: f"refused with {status}"), network)


def read(transport: Transport, file: RemoteFile, begin: int = BEGIN, end: int = END) -> bytes:
    buffer = bytearray(end - begin)
    transport.read(file, begin, memoryview(buffer))
    return bytes(buffer)


def test_ranges_arrive_over_one_connection(server: HubServer) -> None:
    transport, file = open_transport(server), remote_file(server)
    for begin, end in [(0, 8), (8, 100_000), (len(CONTENT) - 1, len(CONTENT)), (5, 5), (0, len(CONTENT))]:
        assert read(transport, file, begin, end) == CONTENT[begin:end]
    transport.close()
    assert server.connections == 1
    assert [request.range for request in server.gets(NAME)] == [(0, 8), (8, 100_000), (1048575, 1048576), None]


def test_a_long_range_is_asked_for_in_parts(server: HubServer) -> None:
    transport = open_transport(server, replace(FAST, range_nbytes=400_000))
    assert read(transport, remote_file(server)) == CONTENT[BEGIN:END]
    assert [request.range for request in server.gets(NAME)] == [(1000, 401000), (401000, 801000), (801000, END)]


PASSING = {
    "cut": Answer(cut=400_000),
    "cut before the body": Answer(cut=0),
    "stall": Answer(stall=300_000),
    "stall before the body": Answer(stall=0),
    "500": Answer(status=500),
    "502": Answer(status=502),
    "503": Answer(status=503, headers={"Retry-After": "0"}),
    "429": Answer(status=429, headers={"Retry-After": "0"}),
    "whole file": Answer(whole=True),
    "shifted range": Answer(shift=16),
    "no Content-Range": Answer(headers={"Content-Range": None}),
    "odd Content-Range": Answer(headers={"Content-Range": "bytes a-b/c"}),
    "too short": Answer(headers={"Content-Length": "10"}),
    "compressed": Answer(headers={"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_tried_again(server: HubServer, fault: str) -> None:
    stalls = PASSING[fault].stall is not None
    server.answers[NAME] = deque([PASSING[fault]] * 2)
    assert read(open_transport(server, HURRIED if stalls else FAST), remote_file(server)) == CONTENT[BEGIN:END]
    assert len(server.gets(NAME)) == 3 or (stalls and len(server.gets(NAME)) > 3)


@pytest.mark.parametrize("answer", [Answer(cut=700_000), Answer(stall=700_000)])
def test_after_a_disconnect_the_read_continues_in_the_middle(server: HubServer, answer: Answer) -> None:
    server.answers[NAME] = deque([answer])
    transport = open_transport(server, replace(FAST, stall_timeout=2))
    assert read(transport, remote_file(server)) == CONTENT[BEGIN:END]
    first, second, *_ = (request.range for request in server.gets(NAME))
    assert first == (BEGIN, END)
    assert BEGIN + 400_000 < second[0] <= BEGIN + 700_000
    assert second[1] == END


def test_an_interrupted_file_continues_with_a_range(server: HubServer) -> None:
    server.answers[NAME] = deque([Answer(cut=700_000)])
    assert read(open_transport(server), remote_file(server), 0, len(CONTENT)) == CONTENT
    first, second = (request.range for request in server.gets(NAME))
    assert first is None
    assert second[0] > 400_000


def test_bytes_that_arrive_are_progress_and_the_count_begins_anew(server: HubServer) -> None:
    server.answers[NAME] = deque([Answer(cut=300_000), Answer(status=500), Answer(status=500)] * 2)
    assert read(open_transport(server), remote_file(server)) == CONTENT[BEGIN:END]


NEVER_ENDING = {
    "one byte after another": (Answer(drip=0.05), "only [0-9]+ bytes arrived in [0-9]+ s"),
    "100 Continue for ever": (Answer(drips_before=0.05), "did not answer within 1 s"),
}


@pytest.mark.parametrize("fault", NEVER_ENDING)
def test_what_never_stops_arriving_is_not_waited_for(server: HubServer, fault: str) -> None:
    answer, message = NEVER_ENDING[fault]
    patient = replace(FAST, connect_timeout=0.5, stall_timeout=0.5, retries=1)
    server.answers[NAME] = deque([answer] * 2)
    with pytest.raises(HubError, match=f"{message}; gave up after 2 attempts"):
        read(open_transport(server, patient), remote_file(server))
    server.api_answer = answer
    server.api_body = b"{}" * 10_000
    with pytest.raises(HubError, match=f"{message}; gave up after 2 attempts"):
        open_transport(server, patient).document(f"{server.url}/x", "x")


def test_a_list_that_takes_longer_than_all_patience_is_not_waited_for(server: HubServer) -> None:
    server.api_answer, server.api_body = Answer(drip=0.01), b"[" * 10_000
    network = replace(FAST, retries=0, stall_timeout=60, patience=0.3)
    with pytest.raises(HubError, match=r"not all of the answer arrived within 0\.3 s; gave up after 1 attempts"):
        open_transport(server, network).document(f"{server.url}/x", "x")


def test_a_slow_link_is_only_slow(server: HubServer) -> None:
    server.answers[NAME] = deque([Answer(drip=0.01)])
    network = replace(FAST, stall_timeout=2, min_rate=5)
    assert read(open_transport(server, network), remote_file(server), 0, 250) == CONTENT[:250]
    assert len(server.gets(NAME)) == 1


def test_closing_ends_the_wait_for_an_answer_that_does_not_come(server: HubServer) -> None:
    server.answers[NAME] = deque([Answer(drips_before=0.01)])
    transport = open_transport(server, Network(stall_timeout=600))

    def close_when_asked() -> None:
        while not server.seen:
            time.sleep(0.01)
        transport.close()

    threading.Thread(target=close_when_asked).start()
    with pytest.raises(HubError, match="reading was stopped"):
        read(transport, remote_file(server))


def test_it_gives_up_in_the_end(server: HubServer) -> None:
    server.answers[NAME] = deque([Answer(status=503)] * 10)
    host = server.url.removeprefix("http://")
    message = f"^org/model/{NAME}: {host} answered with status 503; gave up after 4 attempts, try again later$"
    with pytest.raises(HubError, match=message):
        read(open_transport(server), remote_file(server))
    assert len(server.gets(NAME)) == 4


def test_closing_spares_an_answer_that_has_just_ended(server: HubServer) -> None:
    """Between the list of what is active and its end, another thread may have closed it."""
    transport = open_transport(server)
    with transport._send("GET", remote_file(server).url, {}) as response:
        response.close()
        transport.close()


def test_a_server_that_knows_no_ranges_is_named_as_such(server: HubServer) -> None:
    server.answers[NAME] = deque([Answer(whole=True)] * 10)
    with pytest.raises(
        HubError, match=r"sent the whole file instead of a range \(`keep_source` \(--keep-source\) needs no ranges\)"
    ):
        read(open_transport(server), remote_file(server))


def test_a_wait_beyond_all_patience_is_not_begun(server: HubServer) -> None:
    server.answers[NAME] = deque([Answer(status=429, headers={"Retry-After": "1000"})])
    with pytest.raises(HubError, match="status 429; gave up, since waiting 1000 s is longer than 5 s; try again later"):
        read(open_transport(server), remote_file(server))


def test_a_missing_server_is_reported(server: HubServer) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        file = replace(remote_file(server), url=f"http://127.0.0.1:{unused.getsockname()[1]}/{NAME}")
        with pytest.raises(HubError, match="the connection failed; gave up after 4 attempts"):
            read(open_transport(server), file)


CHANGED = {
    "its ETag": (Answer(headers={"ETag": '"other"'}), "had ETag .* and now has"),
    "its size": (Answer(content=CONTENT + b"x"), "had 1048576 bytes and now has 1048577"),
    "too small for the range": (Answer(content=b"x" * 500), "is shorter than it was"),
}


@pytest.mark.parametrize("change", CHANGED)
def test_a_file_that_changes_between_requests_is_refused_at_once(server: HubServer, change: str) -> None:
    answer, message = CHANGED[change]
    server.answers[NAME] = deque([Answer(), answer])
    transport, file = open_transport(server), remote_file(server)
    assert read(transport, file, 0, 8) == CONTENT[:8]
    with pytest.raises(HubError, match=f"^org/model/{NAME}: the source changed while it was read: it {message}"):
        read(transport, file)
    assert len(server.gets(NAME)) == 2


def test_an_answer_without_an_etag_says_nothing_about_it(server: HubServer) -> None:
    server.answers[NAME] = deque([Answer(), Answer(headers={"ETag": None}), Answer()])
    transport, file = open_transport(server), remote_file(server)
    for _ in range(3):
        assert read(transport, file) == CONTENT[BEGIN:END]


def test_a_whole_file_of_another_size_has_changed(server: HubServer) -> None:
    server.answers[NAME] = deque([Answer(content=CONTENT[1:])])
    with pytest.raises(HubError, match="had 1048576 bytes and now has 1048575"):
        read(open_transport(server), remote_file(server), 0, len(CONTENT))


def test_a_redirect_that_names_another_hash_is_refused(server: HubServer, cdn: HubServer) -> None:
    server.hash_of[NAME] = "0" * 64
    with pytest.raises(HubError, match=r"source changed while it was read: it had SHA-256 .* and now has 0{64}"):
        read(open_transport(server), remote_file(server))


def test_a_token_stays_with_the_hub_that_it_is_for(server: HubServer, cdn: HubServer) -> None:
    transport, file = open_transport(server), remote_file(server)
    assert read(transport, file) == CONTENT[BEGIN:END]
    assert read(transport, file, 0, len(CONTENT)) == CONTENT
    assert {request.headers.get("Authorization") for request in server.seen} == {"Bearer secret"}
    assert cdn.seen
    assert not any({"Authorization", "Cookie"} & set(request.headers) for request in cdn.seen)


# EVIL records what it gets; the address of HUB is what the token is for.
FOREIGN = [
    "http://EVIL/x",
    "//EVIL/x",
    r"http://EVIL\@HUB/x",
    r"http://EVIL\:@HUB",
    "http://HUB@EVIL/x",
    "http://EVIL%5C@HUB/x",
    "http://localhost:PORT/x",
    "https://HUB/x",
]


@pytest.mark.parametrize("road", ["document", "HEAD", "GET", "download server"])
@pytest.mark.parametrize("address", FOREIGN)
def test_no_redirect_takes_the_token_to_another_server(
    server: HubServer, cdn: HubServer, road: str, address: str
) -> None:
    with serve({}) as evil:
        address = address.replace("PORT", str(evil.server_port)).replace("EVIL", evil.url.removeprefix("http://"))
        address = address.replace("HUB", server.url.removeprefix("http://"))
        if road != "download server":
            server.cdn = None
        redirecting = server.cdn or server
        redirecting.redirect = lambda request: (
            address if road in ("document", "download server", request.method) else None
        )
        transport = open_transport(server, replace(FAST, retries=0))
        with pytest.raises(HubError) as error:
            transport.document(f"{server.url}/x", "x") if road == "document" else read(transport, remote_file(server))
        assert "\n" not in str(error.value)
        assert server.seen
        assert not any({"Authorization", "Cookie"} & set(request.headers) for request in (*evil.seen, *cdn.seen))


def test_an_endpoint_with_a_password_is_refused_without_telling_it() -> None:
    with pytest.raises(HubError, match=r"^'http://\.\.\.@127.0.0.1': is not a plain address") as error:
        Transport(Hub("http://me:secret@127.0.0.1", {}, lambda status, _: ""), FAST)
    assert "secret" not in str(error.value)


def test_the_address_of_a_file_is_requested_once(server: HubServer, cdn: HubServer) -> None:
    transport, file = open_transport(server), remote_file(server)
    for begin in range(0, 800_000, 100_000):
        assert read(transport, file, begin, begin + 100_000) == CONTENT[begin : begin + 100_000]
    assert [request.method for request in server.seen] == ["HEAD"]
    assert len({request.path for request in cdn.seen}) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 410, 500])
def test_an_address_that_has_expired_is_asked_for_again(server: HubServer, cdn: HubServer, status: int) -> None:
    transport, file = open_transport(server), remote_file(server)
    read(transport, file, 0, 8)
    cdn.answers[NAME] = deque([Answer(status=status)])
    assert read(transport, file) == CONTENT[BEGIN:END]
    assert [request.method for request in server.seen] == ["HEAD", "HEAD"]
    assert len({request.path for request in cdn.seen}) == 2


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_the_hub_itself_refuses_is_not_tried_again(server: HubServer, status: int) -> None:
    server.answers[NAME] = deque([Answer(status=status)])
    with pytest.raises(HubError, match=f"^org/model/{NAME}: refused with {status}$"):
        read(open_transport(server), remote_file(server))
    assert len(server.gets(NAME)) == 1


def test_a_range_is_known_by_its_header_where_the_status_is_wrong(server: HubServer) -> None:
    server.partial_status = 200  # as ModelScope answers
    assert read(open_transport(server), remote_file(server)) == CONTENT[BEGIN:END]
    assert len(server.gets(NAME)) == 1


def test_redirects_without_end(server: HubServer) -> None:
    server.answers[NAME] = deque(
        [Answer(status=302, headers={"Location": f"{server.url}/org/model/resolve/main/{NAME}"})] * 20
    )
    with pytest.raises(HubError, match="redirects more than 5 times; check the endpoint"):
        read(open_transport(server), remote_file(server))


def test_a_netrc_file_neither_replaces_the_token_nor_goes_elsewhere(
    server: HubServer, cdn: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret2\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    read(open_transport(server), remote_file(server))
    assert {request.headers.get("Authorization") for request in server.seen} == {"Bearer secret"}
    assert not any("Authorization" in request.headers for request in cdn.seen)


def test_waits_double_up_to_a_limit_and_are_never_shorter_than_asked_for() -> None:
    waits: list[float] = []
    attempts = Attempts(Network(retries=9, first_delay=1, longest_delay=8), "x", waits.append)
    for _ in range(5):
        attempts.failed(TransientError("why"))
    attempts.failed(TransientError("why", retry_after=20))
    for wait, longest in zip(waits, [1, 2, 4, 8, 8], strict=False):
        assert longest / 2 <= wait <= longest
    assert waits[5] == 20


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, 0), ("7", 7), ("soon", 0), ("", 0), ("-3", 0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0)],
)
def test_retry_after_is_a_number_or_a_date(value: str | None, seconds: float) -> None:
    assert parse_retry_after(value) == seconds


def test_a_date_to_come_is_waited_for() -> None:
    assert parse_retry_after("Fri, 31 Dec 9998 23:59:59 GMT") > 1e9
