from __future__ import annotations

from types import SimpleNamespace

import pytest

from msport.errors import HubError
from msport.hub.address import origin_of, redirect_target

# What one library or another reads as a host, a user, a port or a path, each in its own way.
AMBIGUOUS = [
    r"http://a\@b/x",
    r"HTTP://a\@b",
    r"http://a:1\@b:2/x",
    r"http:\\a/x",
    r"http:/\a/x",
    r"http://a\:@b",
    "http://user@b/x",
    "http://user:password@b/x",
    "http://a@b@c/x",
    "http://a%40b/x",
    "http://a%5C@b/x",
    "http://a\t@b/x",
    "http://a\0@b/x",
    "http://a b/x",
    "http://a\r\nb/x",
    "http://a;@b/x",
    "http://[::1",
    "http://[:::::]/x",
    "http://localhost:99999/x",
    "http://localhost:port/x",
    "http://localhost:-1/x",
    "http://b\u00fccher/x",
    "http://\xff/x",
    "http://\uff0fb/x".encode().decode("latin-1"),
]


@pytest.mark.parametrize("address", AMBIGUOUS)
def test_an_address_that_may_be_read_in_two_ways_is_refused(address: str) -> None:
    for refused in (lambda: origin_of(address), lambda: redirect_target(redirect("http://hub/x", address))):
        with pytest.raises(HubError, match="is not a plain address") as error:
            refused()
        assert "\n" not in str(error.value)
        assert "password" not in str(error.value)


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        ("https://huggingface.co/a?b=c@d", "https://huggingface.co:443"),
        ("HTTPS://HuggingFace.CO", "https://huggingface.co:443"),
        ("http://127.0.0.1:8000/a", "http://127.0.0.1:8000"),
        ("http://[::1]:8000#a", "http://[::1]:8000"),
        ("http://a:080", "http://a:80"),
        ("http://a?@b", "http://a:80"),
    ],
)
def test_an_origin_is_scheme_host_and_port(address: str, origin: str) -> None:
    assert origin_of(address) == origin


def redirect(url: str, location: str) -> SimpleNamespace:
    return SimpleNamespace(status_code=302, headers={"Location": location}, url=url)


@pytest.mark.parametrize(
    ("location", "target"),
    [("/x", "https://a/x"), ("x", "https://a/b/x"), ("//c/x", "https://c/x"), (" https://c/x\t", "https://c/x")],
)
def test_a_redirect_may_be_relative(location: str, target: str) -> None:
    assert redirect_target(redirect("https://a/b/c", location)) == target


@pytest.mark.parametrize(
    ("location", "message"),
    [("http://b/x", "which is not encrypted; use another mirror"), ("file:///etc/passwd", "which is not on the web")],
)
def test_redirects_that_lead_off_the_safe_path(location: str, message: str) -> None:
    with pytest.raises(HubError, match=message):
        redirect_target(redirect("https://a/x", location))
