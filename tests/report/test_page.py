"""A page holds what it is given, escaped, and no empty parts."""

from __future__ import annotations

from msport.report.page import Banner, cards, paragraph, remarks, render, section, settings


def test_a_section_without_content_is_left_out() -> None:
    body = [cards([]), section("Notes", remarks([])), section("Setup", paragraph("a < b"))]
    page = render("tool", "title", "subtitle", [], body)
    assert "<section><h2>Setup</h2>\n<p>a &lt; b</p>\n</section>" in page
    assert page.count("<section>") == 1
    assert "cards" not in page.partition("<body>")[2]


def test_the_outcome_is_in_the_title_and_comes_first() -> None:
    page = render("tool", "model", "what ran", [Banner("bad", "FAILED", ["why"])], [section("Setup", paragraph("a"))])
    assert "<title>FAILED: model - tool</title>" in page
    places = [page.index(text) for text in ('class="banner bad"', "<p>why</p>", "what ran", "<h2>Setup</h2>")]
    assert places == sorted(places)


def test_settings_are_named_in_words_and_those_that_were_not_set_are_left_out() -> None:
    shown = settings({"max_length": 64, "packed": True, "streamed": False, "revision": None})
    assert '<td class="word">max length</td><td class="word">64</td>' in shown
    assert '<td class="word">packed</td><td class="word">yes</td>' in shown
    assert '<td class="word">streamed</td><td class="word">no</td>' in shown
    assert "revision" not in shown
