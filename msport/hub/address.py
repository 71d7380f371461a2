"""Addresses that every library reads alike: a credential goes wherever the one that connects reads."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urljoin

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from msport.errors import HubError, quote

_REDIRECTS = {301, 302, 303, 307, 308}
_PORTS = {"http": 80, "https": 443}
# `http://a\@b/` is on a to urllib3, which connects, and on b to urllib.parse: so no backslash, user or white space.
_HOST = r"(?:[a-z0-9_-](?:[a-z0-9._-]*[a-z0-9_-])?|\[[0-9a-f:.]+\])"
_PLAIN = re.compile(rf"https?://{_HOST}(?::[0-9]{{1,5}})?(?:[/?#][^\\\s\0-\x1f\x7f]*)?", re.IGNORECASE)
_AMBIGUOUS = re.compile(r"[\\\s\0-\x1f\x7f]")
_USER = re.compile(r"//[^/]*@")


def origin_of(url: str) -> str:
    """Scheme, host and port, as urllib3 connects to them: what a credential is for.

    Raises HubError if `url` is not plainly ``http[s]://host[:port]/...``, or another library could read it otherwise.
    """
    origin = _origin(url)
    if origin is None:
        raise HubError(f"{_shown(url)}: is no plain address, http[s]://host[:port]/...; check the endpoint")
    return origin


def redirect_target(response: Any) -> str | None:
    """Where `response` redirects to, if it does; raises HubError if that is no place for weights to come from."""
    if response.status_code not in _REDIRECTS or "Location" not in response.headers:
        return None
    url: str = response.url
    target = _joined(url, response.headers["Location"].strip(" \t"))
    if target.partition(":")[0].lower() not in _PORTS:
        raise HubError(f"{url}: redirects to {_shown(target)}, which is not on the web; check the endpoint")
    origin = _origin(target)
    if origin is None:
        raise HubError(f"{url}: redirects to {_shown(target)}, which is no plain address; check the endpoint")
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
    """`location`, absolute; unchanged if it is not fit to be joined."""
    try:
        location = location.encode("latin-1").decode("utf-8")  # http.client reads headers as Latin-1
        return location if _AMBIGUOUS.search(location) else urljoin(url, location)  # which takes some of it out
    except ValueError:
        return location


def _shown(url: str) -> str:
    """`url` for a message, without the password that it may hold."""
    return quote(_USER.sub("//...@", url))
