"""What a message about a hostile file must be."""

from __future__ import annotations

LONGEST = 8000


def assert_fit_for_a_line(message: str) -> None:
    """One line that a terminal can be trusted with, and of a length that does not depend on the file."""
    assert message.isprintable(), ascii(message)
    assert 0 < len(message) <= LONGEST, f"a message of {len(message)} characters"
