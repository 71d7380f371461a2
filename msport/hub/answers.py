"""What an HTTP answer must be before its body is believed."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urljoin, urlsplit

from msport.errors import HubError
from msport.hub.listing import RemoteFile, hexadecimal
from msport.hub.network import TransientError

_REDIRECTS = {301, 302, 303, 307, 308}
_LENGTH = re.compile(r"\d{1,19}", re.ASCII)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", re.ASCII)


def check_linked(file: RemoteFile, response: Any) -> None:
    """Refuse a file of which Hugging Face, on redirecting to it, states another SHA-256 than it listed."""
    linked = hexadecimal(response.headers.get("X-Linked-ETag", "").removeprefix("W/").strip('"'), 64)
    if linked and file.sha256 and linked != file.sha256:
        raise changed(str(file), f"had SHA-256 {file.sha256} and now has {linked}")


def check_range(file: RemoteFile, response: Any, begin: int, end: int) -> None:
    """Check that the body is bytes ``[begin, end)`` of the file that was listed.

    ModelScope answers a range with status 200 and a right ``Content-Range``, so that this header, and not the status,
    says what is coming (https://github.com/modelscope/modelscope_hub/issues/50).
    """
    headers, nbytes = response.headers, end - begin
    if headers.get("Content-Encoding", "identity") != "identity":
        raise TransientError(f"the server compressed the file ({headers['Content-Encoding']})")
    length = int(headers["Content-Length"]) if _LENGTH.fullmatch(headers.get("Content-Length", "")) else nbytes
    if "Content-Range" not in headers:
        if response.status_code == 206:
            raise TransientError("the server sent a range without saying which")
        if nbytes != file.nbytes:
            raise TransientError("the server sent the whole file instead of a range (--keep-source needs no ranges)")
        if length != file.nbytes:
            raise changed(str(file), f"had {file.nbytes} bytes and now has {length}")
        return
    match = _CONTENT_RANGE.fullmatch(headers["Content-Range"])
    if match is None:
        raise TransientError(f"the server sent the range {headers['Content-Range']!r}")
    first, last, total = (int(digits) for digits in match.groups())
    if total != file.nbytes:
        raise changed(str(file), f"had {file.nbytes} bytes and now has {total}")
    if (first, last + 1) != (begin, end) or length != nbytes:
        raise TransientError(f"the server sent bytes {first} to {last} ({length}) instead of {begin} to {end - 1}")


def redirect_target(response: Any) -> str | None:
    """Where `response` redirects to, if it does; raises HubError if that is no place for weights to come from."""
    if response.status_code not in _REDIRECTS or "Location" not in response.headers:
        return None
    url: str = response.url
    target: str = urljoin(url, response.headers["Location"])
    if urlsplit(target).scheme not in ("http", "https"):
        raise HubError(f"{url}: redirects to {target!r}, which is not on the web; check the endpoint")
    if urlsplit(url).scheme == "https" and urlsplit(target).scheme != "https":
        raise HubError(f"{url}: redirects to {target!r}, which is not encrypted; use another mirror")
    return target


def origin_of(url: str) -> str:
    """Scheme, host and port: what a credential is for."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return f"{parts.scheme}://{parts.hostname}:{port}"


def changed(what: str, how: str) -> HubError:
    """The error about a file that is not what it was: it `how`."""
    return HubError(f"{what}: the source changed while it was read: it {how}; start again, if need be with --restart")
