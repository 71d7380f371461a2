"""A table stands in straight columns, whatever it is written in, and says the same on a page."""

from __future__ import annotations

from msport.report.formatting import display_width
from msport.report.table import Table, columns

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


def test_columns_are_straight_beside_chinese_text() -> None:
    lines = list(columns([("prompt", "tokens"), ("模型移植", "7"), ("plain", "12"), ("e\u0301", "3")], "<>"))
    assert {display_width(line) for line in lines} == {2 + 8 + 2 + 6}
    assert lines[1].endswith("模型移植       7")


def test_a_head_of_several_lines_ends_beside_the_others() -> None:
    rows = [("dtype", "prefill\ntokens/s", "+-"), ("float32", "640.0", "1%")]
    lines = ["          prefill", "dtype    tokens/s  +-", "float32     640.0  1%"]
    assert list(columns(rows, "<>>", indent="")) == lines


def test_a_line_of_empty_cells_ends_without_spaces() -> None:
    assert list(columns([("a", "b"), ("long", "")], indent="")) == ["a     b", "long"]
