"""A table says the same on a terminal and on a page."""

from __future__ import annotations

from msport.report.table import Table

TABLE = Table(
    ("name", "how", "error", "none"), [("a<b", "every token", "1e-3", ""), ("c", "", "2", "")], "<<", ["bad", ""]
)


def test_words_stand_left_and_numbers_right() -> None:
    narrow = TABLE.without_empty()
    assert list(narrow.lines()) == ["name  how          error", "a<b   every token   1e-3", "c                      2"]
    page = narrow.html()
    assert '<tr class="bad"><td class="word">a&lt;b</td><td class="word">every token</td><td>1e-3</td></tr>' in page
    assert '<tr><td class="word">c</td>' in page
    assert "none" not in page


def test_a_column_that_is_left_out_takes_its_side_with_it() -> None:
    assert list(TABLE.without({"how", "none"}).lines("  ")) == ["  name  error", "  a<b    1e-3", "  c         2"]
