"""Ranges of files over HTTP, in order and complete even if the network fails at times."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.client import HTTPException
from http.cookiejar import DefaultCookiePolicy
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from msport import __version__
from msport.checkpoint import strict_json
from msport.errors import HubError, quote
from msport.hub.address import origin_of, redirect_target
from msport.hub.limits import PASSING_STATUSES, Attempts, Network, TransientError, parse_retry_after
from msport.hub.listing import Hub, RemoteFile
from msport.hub.response import Body, changed, check_encoding, check_linked, check_range

_MAX_REDIRECTS = 5
_FIRST_RETRIES = 2
_MAX_DOCUMENT = 50_000_000
_MAX_DRAINED = 1 << 18
_SIGNAL_SECONDS = 0.5

Item = TypeVar("Item")
Result = TypeVar("Result")


class Transport:
    """Fetches from `hub` and from its redirects; safe to use from several threads.

    Credentials are sent only to the Hub's own origin, not to a content network. Proxies and certificates come from the
    environment, as in every program that uses ``requests``.
    """

    def __init__(self, hub: Hub, network: Network) -> None:
        self._origin = origin_of(hub.endpoint)
        self._hub = hub
        self._network = network
        self._slots = threading.BoundedSemaphore(network.connections)
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._active: set[Callable[[], object]] = set()
        self._locations: dict[str, str] = {}
        self._etags: dict[tuple[str, str], str] = {}
        self._session = requests.Session()
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        # Without this, a .netrc file would replace the credentials and would be sent to other hosts.
        self._session.auth = lambda request: request
        # requests parses the target of a redirect even if it must not follow it, and fails on odd addresses.
        self._session.get_redirect_target = lambda response: None
        adapter = HTTPAdapter(pool_maxsize=network.connections)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def read(self, file: RemoteFile, begin: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes of `file` from `begin` on, without a copy.

        Raises HubError if the Hub refuses, the file has changed since it was listed, or the network does not recover
        within the limits.
        """
        attempts = Attempts(self._network, str(file), self._closed.wait)
        done = 0
        while done < len(buffer):
            received = 0
            end = min(done + self._network.range_nbytes, len(buffer))
            try:
                with self._open(file, begin + done, begin + end) as body:
                    while done + received < end:
                        self._check_open()
                        received += body.fill(buffer[done + received : end])
            except TransientError as fault:
                attempts.failed(fault, received)
            finally:
                done += received

    def document(self, url: str, what: str) -> Any:
        """The JSON document at `url`, on the endpoint; messages call it `what`. Raises HubError."""
        # The first request to a Hub: if it cannot be reached, say so soon.
        few = replace(self._network, retries=min(self._network.retries, _FIRST_RETRIES))
        attempts = Attempts(few, what, self._closed.wait)
        while True:
            try:
                with self._send("GET", url, {}) as response:
                    if response.status_code != 200:
                        raise self._refusal(what, response)
                    check_encoding(response)
                    return strict_json.parse(Body(response, self._network).whole(_MAX_DOCUMENT))
            except TransientError as fault:
                attempts.failed(fault)
            except ValueError as error:
                raise HubError(f"{what}: {url} is no document ({error}); check the endpoint") from error

    def each(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """The results of `work` for all `items`, several at the same time. The first error stops the others."""
        with futures.ThreadPoolExecutor(self._network.connections, "msport-hub") as pool:
            try:
                results = [pool.submit(work, item) for item in items]
                waiting = set(results)
                while waiting:  # with a timeout, because a signal just before a wait is handled only after it
                    done, waiting = futures.wait(waiting, _SIGNAL_SECONDS, futures.FIRST_EXCEPTION)
                    for result in done:
                        result.result()
                return [result.result() for result in results]
            except BaseException:  # Ctrl-C too
                self.close()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def close(self) -> None:
        """Close every connection. Reads in other threads soon end with HubError."""
        self._closed.set()
        with self._lock:
            active = list(self._active)
        for stop in active:
            with suppress(ValueError, RuntimeError, OSError):  # ended meanwhile
                stop()
        self._session.close()

    @contextmanager
    def _open(self, file: RemoteFile, begin: int, end: int) -> Iterator[Body]:
        """The body of a range. Raises TransientError for a temporary failure."""
        headers = {} if (begin, end) == (0, file.nbytes) else {"Range": f"bytes={begin}-{end - 1}"}
        location = self._locate(file) if headers else file.url
        try:
            with self._send("GET", location, headers) as response:
                if response.status_code not in (200, 206):
                    raise self._refusal(str(file), response, moved=origin_of(response.url) != self._origin)
                self._check_same(file, response)
                check_range(file, response, begin, end)
                yield Body(response, self._network)
        except TransientError:
            with self._lock:
                self._locations.pop(file.url, None)  # signed addresses expire, and single servers fail
            raise

    def _locate(self, file: RemoteFile) -> str:
        """The final address of `file`, requested once. The request has no range, because the address may be signed
        for one.
        """
        with self._lock:
            location = self._locations.get(file.url)
        if location is None:
            with self._send("HEAD", file.url, {}, abroad=False) as response:
                check_linked(file, response)
                location = redirect_target(response) or (response.url if response.ok else None)
            if location is None:
                return file.url  # the request for the content will report a refusal
            with self._lock:
                self._locations[file.url] = location
        return location

    @contextmanager
    def _send(self, method: str, url: str, headers: dict[str, str], abroad: bool = True) -> Iterator[Any]:
        """The response after redirects, only within the Hub unless `abroad`. Raises TransientError if there is none."""
        with self._slots:
            self._check_open()
            response = None
            try:
                for _ in range(_MAX_REDIRECTS + 1):
                    response = self._answer(method, url, headers)
                    # Wakes a thread that waits for bytes; with urllib3 before 2.3 the thread waits for its timeout.
                    with self._stopped_by(getattr(response.raw, "shutdown", int)):
                        target = redirect_target(response)
                        if method == "HEAD" or target is not None:
                            with suppress(ValueError):  # read to the end, so that the connection can be reused
                                Body(response, self._network).whole(_MAX_DRAINED)
                        if target is None or not (abroad or origin_of(target) == self._origin):
                            yield response
                            return
                    response.close()
                    url = target
                raise HubError(f"{url}: redirects more than {_MAX_REDIRECTS} times; check the endpoint")
            except (requests.RequestException, urllib3.exceptions.HTTPError, HTTPException, OSError) as error:
                if isinstance(error, requests.exceptions.InvalidHeader):
                    raise HubError("the token holds characters that no HTTP header may; set it anew") from error
                if isinstance(error, ValueError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
                    raise HubError(f"{url}: {error}; check the endpoint, the proxy and the certificates") from error
                raise TransientError(_reason(error, self._network)) from error
            finally:
                if response is not None:
                    response.close()

    def _answer(self, method: str, url: str, headers: dict[str, str]) -> Any:
        """The response of `url` itself, with only its header received. Raises TransientError.

        The timeouts of ``requests`` bound each single wait, not the sum: a server could send ``100 Continue`` for ever.
        So another thread makes the request, and it is abandoned when the time is up.
        """
        origin = origin_of(url)
        own = self._hub.credentials if origin == self._origin else {}
        answer: futures.Future[Any] = futures.Future()

        def ask() -> None:
            try:
                response = self._session.request(
                    method,
                    url,
                    headers={"User-Agent": f"msport/{__version__}", **own, "Accept-Encoding": "identity", **headers},
                    stream=True,
                    allow_redirects=False,
                    timeout=(self._network.connect_timeout, self._network.stall_timeout),
                )
            except BaseException as error:
                if answer.set_running_or_notify_cancel():
                    answer.set_exception(error)
                return
            if answer.set_running_or_notify_cancel():
                answer.set_result(response)
            else:
                response.close()

        seconds = self._network.connect_timeout + self._network.stall_timeout
        with self._stopped_by(answer.cancel):
            threading.Thread(target=ask, name="msport-hub-answer", daemon=True).start()
            try:
                return answer.result(seconds)
            except futures.TimeoutError:
                if answer.cancel():
                    raise TransientError(f"{origin} did not answer within {seconds:g} s") from None
                return answer.result()  # the response came just now, or this is an error of the request
            except futures.CancelledError:
                raise HubError("reading was stopped") from None
            finally:
                answer.cancel()

    @contextmanager
    def _stopped_by(self, stop: Callable[[], object]) -> Iterator[None]:
        """Lets `close` call `stop` during this context. Raises HubError if it is already closed."""
        with self._lock:
            self._active.add(stop)
        try:
            self._check_open()  # from here, either this sees a close, or the close sees this entry
            yield
        finally:
            with self._lock:
                self._active.discard(stop)

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise HubError("reading was stopped")

    def _refusal(self, what: str, response: Any, moved: bool = False) -> Exception:
        """A TransientError if the same request may succeed later or elsewhere, else a HubError."""
        status = response.status_code
        if status in PASSING_STATUSES or (moved and status in (400, 401, 403, 404, 410)):
            return TransientError(
                f"{urlsplit(response.url).netloc} answered with status {status}",
                parse_retry_after(response.headers.get("Retry-After")),
            )
        if status == 416:
            return changed(what, "is shorter than it was")
        return HubError(f"{what}: {self._hub.explain(status, response.headers)}")

    def _check_same(self, file: RemoteFile, response: Any) -> None:
        """Refuse a file whose ETag differs from that of an earlier response of the same server."""
        etag = response.headers.get("ETag", "").removeprefix("W/")
        if not etag:
            return
        with self._lock:
            known = self._etags.setdefault((file.url, origin_of(response.url)), etag)
        if etag != known:
            raise changed(str(file), f"had ETag {quote(known)} and now has {quote(etag)}")


def _reason(error: Exception, network: Network) -> str:
    if isinstance(error, requests.ConnectTimeout):
        return f"no connection within {network.connect_timeout:g} s"
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)):
        return f"nothing arrived for {network.stall_timeout:g} s"
    if isinstance(error, requests.exceptions.SSLError):
        return "the encrypted connection failed"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy cannot be reached; check HTTPS_PROXY"
    if isinstance(error, requests.ConnectionError):
        return "the connection failed"
    return "the connection was cut"
