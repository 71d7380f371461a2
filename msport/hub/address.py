"""Accepts only addresses that every library parses in the same way, so that a token cannot reach another server."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urljoin

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from msport.errors import HubError, quote

_REDIRECTS = {301, 302, 303, 307, 308}
_PORTS = {"http": 80, "https": 443}
# urllib3, which connects, reads `http://a\@b/` as host a; urllib.parse reads host b. So no backslash, user or white
# space is allowed.
_HOST = r"(?:[a-z0-9_-](?:[a-z0-9._-]*[a-z0-9_-])?|\[[0-9a-f:.]+\])"
_PLAIN = re.compile(rf"https?://{_HOST}(?::[0-9]{{1,5}})?(?:[/?#][^\\\s\0-\x1f\x7f]*)?", re.IGNORECASE)
_AMBIGUOUS = re.compile(r"[\\\s\0-\x1f\x7f]")
_USER = re.compile(r"//[^/]*@")


def origin_of(url: str) -> str:
    """Scheme, host and port to which urllib3 connects. A credential is valid for exactly these.

    Raises HubError if `url` is not of the form ``http[s]://host[:port]/...`` or is ambiguous between libraries.
    """
    origin = _origin(url)
    if origin is None:
        raise HubError(f"{_shown(url)}: is not a plain address, http[s]://host[:port]/...; check the endpoint")
    return origin


def redirect_target(response: Any) -> str | None:
    """The target of a redirect, or None. Raises HubError if weights must not come from there."""
    if response.status_code not in _REDIRECTS or "Location" not in response.headers:
        return None
    url: str = response.url
    target = _joined(url, response.headers["Location"].strip(" \t"))
    if target.partition(":")[0].lower() not in _PORTS:
        raise HubError(f"{url}: redirects to {_shown(target)}, which is not on the web; check the endpoint")
    origin = _origin(target)
    if origin is None:
        raise HubError(f"{url}: redirects to {_shown(target)}, which is not a plain address; check the endpoint")
    if origin.startswith("http:") and origin_of(url).startswith("https:"):
        raise HubError(f"{url}: redirects to {_shown(target)}, which is not encrypted; use another mirror")
    return target


def _origin(url: str) -> str | None:
    if _PLAIN.fullmatch(url) is None:
        return None
    try:
        parts = parse_url(url)
    except LocationParseError:
        return None
    port = _PORTS[str(parts.scheme)] if parts.port is None else parts.port
    return f"{parts.scheme}://{parts.host}:{port}"


def _joined(url: str, location: str) -> str:
    """`location` as an absolute address; unchanged if it cannot be joined."""
    try:
        location = location.encode("latin-1").decode("utf-8")  # http.client reads headers as Latin-1
        # urljoin would silently remove some of these characters.
        return location if _AMBIGUOUS.search(location) else urljoin(url, location)
    except ValueError:
        return location


def _shown(url: str) -> str:
    """`url` for a message, without a password."""
    return quote(_USER.sub("//...@", url))
