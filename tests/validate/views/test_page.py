"""The page of a report is one well-formed file that says the verdict first."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
from report.drawings import outside

from msport.validate.compare.layers import LayerError
from msport.validate.compare.routing import RoutingCheck
from msport.validate.views.page import render_page
from validate.made_reports import LAYERS, make_report, make_result


class _Outline(HTMLParser):
    """Tags that were opened, and whether each was closed in order."""

    void = ("meta", "line")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self.open.pop() == tag


def test_the_page_is_well_formed_self_contained_and_escaped() -> None:
    page = render_page(
        make_report(make_result(wrong={2: np.inf}), make_result(path="decode"), layers=LAYERS, first_departure=2)
    )
    outline = _Outline()
    outline.feed(page)
    assert not outline.open
    assert not {"src", "href"} & {name for _, attributes in outline.seen for name in attributes}
    assert "a&lt;b&gt;-ms" in page
    assert "<b>" not in page
    assert sum(tag == "path" for tag, _ in outline.seen) == 2, "the prefill, and the drift by layer"
    assert page.index("FAILED") < page.index("<svg"), "the verdict comes first"
    assert "http" not in page.replace("http-equiv", "")


def test_no_text_of_a_picture_leaves_its_paper() -> None:
    lost = make_report(make_result(wrong={0: np.nan}), make_result(path="decode"), layers=LAYERS, first_departure=2)
    assert list(outside(render_page(lost))) == []


def test_router_agreement_is_drawn_where_it_is_not_whole() -> None:
    whole = RoutingCheck(tokens=10, agreeing=10, margin=0.0, near_ties=0, wrong=0)
    right = LayerError(1, "layers.0", 1e-6, 1e-6, "random", 3, (), whole)
    assert "In every layer all tokens chose the experts of the reference" in render_page(
        make_report(make_result(), layers=(right,))
    )
    assert "layers.1, 1 of 10 tokens: 10%" in render_page(make_report(make_result(), layers=LAYERS))
