"""The tables of a report fit a terminal and hold what was measured."""

from __future__ import annotations

import numpy as np

from msport.validate.compare.layers import LayerError
from msport.validate.views.page import render_page
from msport.validate.views.tables import layer_table
from validate.made_reports import LAYERS, make_report, make_result


def test_the_rows_of_a_batch_share_a_line_of_the_table() -> None:
    report = make_report(make_result(), *(make_result(str(row), path="batch") for row in range(3)), noise=None)
    lines = [line for line in str(report).splitlines() if line.startswith(("random", "batch"))]
    assert [line.split()[:4] for line in lines] == [["random", "5", "1.00e-05", "0"], ["batch", "of", "3", "15"]]


def test_a_growth_that_is_not_a_number_is_a_dash_and_a_large_one_has_no_exponent() -> None:
    drifts = (0.0, 1e-6, 2e-6, 0.0246, 1e4, np.inf, np.inf)
    layers = tuple(LayerError(n, f"layers.{n}", drift, drift, "random", 3) for n, drift in enumerate(drifts))
    table = layer_table(make_report(make_result(), layers=layers))
    assert [row[table.head.index("growth")] for row in table.rows] == [
        "-",
        "-",
        "x2.0",
        "x12,300",
        "x406,504",
        "-",
        "-",
    ]
    assert [row[table.head.index("drift")] for row in table.rows[-2:]] == ["not finite"] * 2


def test_no_table_of_a_failure_writes_inf_or_nan() -> None:
    report = make_report(make_result(wrong={0: np.nan}), layers=LAYERS, first_departure=2)
    cells = [cell for line in str(report).splitlines() for cell in line.split()]
    assert "not finite" in str(report)
    assert not {"inf", "nan", "xinf", "xnan"} & set(cells)


def test_the_table_of_results_fits_a_terminal_of_80_columns_and_the_page_has_all() -> None:
    report = make_report(make_result("english"), make_result("english", "decode"))
    (head,) = (line for line in str(report).splitlines() if line.startswith("prompt"))
    rows = [line for line in str(report).splitlines() if line.startswith(("prompt", "english"))]
    assert len(rows) == 3
    assert max(map(len, rows)) <= 80
    assert "KL mean" not in head
    assert ">KL mean<" in render_page(report)


def test_a_dense_model_has_no_column_of_experts() -> None:
    assert "experts" not in str(make_report(make_result(), layers=LAYERS[:2]))
    assert "90.00%" in str(make_report(make_result(), layers=LAYERS))
