"""Options that would have no effect are refused before anything runs."""

from __future__ import annotations

import pytest

from cli.command import Run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["doctor", "--batch", "2"], "without DIR no model is fitted: --batch would be ignored; leave that out"),
        (
            ["doctor", "--max-length", "8", "--batch", "1"],
            "without DIR no model is fitted: --max-length, --batch would be ignored; leave that out",
        ),
        (["inspect", "x", "--tensors", "--json"], "--json lists every tensor: --tensors would be ignored"),
    ],
)
def test_an_option_without_effect_is_refused(msport: Run, arguments: list[str], message: str) -> None:
    result = msport(*arguments)
    assert (result.status, result.out, result.err.count("\n")) == (2, "", 1)
    assert result.err.startswith(f"msport: error: {message}")
