"""Charts: numbers in, SVG out."""

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from django.contrib.staticfiles import finders
from django.template.loader import render_to_string
from django.test import override_settings
from django.utils import translation

from django_multisession.charts import PLACES, Bar, Chart, grouped

SVG = "{http://www.w3.org/2000/svg}"
LEGEND = [("open", "more than that"), ("failed", "an error")]


def chart(*values: int, **fields: object) -> Chart:
    bars = [Bar(f"bar {number}", value, grouped(value)) for number, value in enumerate(values)]
    return Chart(**{"name": "test", "title": "A title", "summary": "A summary", "bars": bars, **fields})


def rendered(chart: Chart) -> str:
    return render_to_string("django_multisession/chart.html", {"chart": chart})


def svg(page: str) -> ET.Element:
    """Parsed, as the XML that it also is."""
    [found] = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    return ET.fromstring(found.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"'))


def bars(page: str) -> list[dict[str, int]]:
    places = [group.findall(f"{SVG}rect") for group in svg(page).iter(f"{SVG}g")]
    numbers = ("x", "y", "width", "height")
    return [{name: int(bar.attrib[name]) for name in numbers} for _, bar in places]


def test_heights_are_in_proportion():
    assert [bar["height"] for bar in bars(rendered(chart(0, 25, 50, 100)))] == [0, 25, 50, 100]


def test_bars_stand_on_the_ground():
    assert {bar["y"] + bar["height"] for bar in bars(rendered(chart(3, 2, 1)))} == {100}


def test_one_row_is_seen_beside_a_million():
    assert [bar["height"] for bar in bars(rendered(chart(1, 1_000_000)))] == [1, 100]


def test_nothing_at_all():
    assert [bar["height"] for bar in bars(rendered(chart(0, 0)))] == [0, 0]
    assert "<svg" not in rendered(chart())


@pytest.mark.parametrize("count", [1, PLACES - 1, PLACES, 100])
def test_bars_are_beside_one_another_up_to_the_right_edge(count):
    page = rendered(chart(*range(1, count + 1)))
    _, _, width, _ = map(int, svg(page).attrib["viewBox"].split())
    edges = [edge for bar in bars(page) for edge in (bar["x"], bar["x"] + bar["width"])]
    assert [0, *edges, width] == sorted({0, *edges, width})
    assert width - edges[-1] < bars(page)[0]["width"]


def test_few_bars_do_not_fill_the_page():
    assert bars(rendered(chart(1)))[0]["x"] > 0


@pytest.mark.parametrize("language", ["en", "de", "ar", "hi"])
def test_no_language_changes_the_numbers_of_the_svg(language):
    with translation.override(language), override_settings(USE_THOUSAND_SEPARATOR=True):
        page = rendered(chart(*[1_234_567] * 300))
    assert bars(page)[-1]["x"] == 2991
    assert set(svg(page).attrib["viewBox"]) <= set("0123456789 ")


@pytest.mark.parametrize(("language", "text"), [("en", "1,234,567"), ("de", "1.234.567")])
def test_words_are_in_the_language(language, text):
    with translation.override(language):
        assert f"bar 0: {text}" in rendered(chart(1_234_567))


def test_the_same_figures_as_a_table():
    page = rendered(chart(7, 1234, headings=("Name", "Number")))
    assert re.findall(r"<th scope=\"(\w+)\">(.*?)</th>", page) == [
        ("col", "Name"),
        ("col", "Number"),
        ("row", "bar 0"),
        ("row", "bar 1"),
    ]
    assert re.findall(r"<td>(.*?)</td>", page) == ["7", "1,234"]


def test_the_svg_has_a_name_and_a_description():
    root = svg(rendered(chart(1)))
    assert root.attrib["role"] == "img"
    described = {element.attrib.get("id"): element.text for element in root}
    assert [described[id] for id in root.attrib["aria-labelledby"].split()] == ["A title", "A summary"]


def test_ticks_are_in_their_order():
    page = rendered(chart(1, 2, 3, ticks=["a", "b", "c"]))
    assert re.findall(r"<span>(\w)</span>", page) == ["a", "b", "c"]


def test_the_legend_has_what_occurs():
    page = rendered(chart(bars=[Bar("a", 1, "1", "open"), Bar("b", 1, "1")], legend=LEGEND))
    assert "more than that" in page
    assert "an error" not in page
    assert [group.attrib["class"] for group in svg(page).iter(f"{SVG}g")] == ["open", ""]


def test_what_a_mark_means_is_said_in_words_too():
    page = rendered(chart(bars=[Bar("a", 1, "1", "failed"), Bar("b", 2, "2")], legend=LEGEND))
    assert [group[0].text for group in svg(page).iter(f"{SVG}g")] == ["a: 1, an error", "b: 2"]
    assert re.findall(r"<td>(.*?)</td>", page) == ["1, an error", "2"]


def test_text_is_escaped():
    hostile = "</title><script>alert('&')</script>"
    page = rendered(chart(title=hostile, summary=hostile, bars=[Bar(hostile, 1, hostile)], ticks=[hostile]))
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 10
    assert svg(page)[0].text == hostile


def test_neither_scripts_nor_styles_nor_anything_else_that_a_content_security_policy_refuses():
    page = rendered(chart(1, 2, ticks=["a", "b"], legend=LEGEND))
    assert not re.search(r"<script|<style|\sstyle=|\son\w+=|href=|src=", page)


def test_the_stylesheet_knows_all_classes():
    with override_settings(INSTALLED_APPS=["django_multisession"]):
        finders.get_finder.cache_clear()
        path = finders.find("django_multisession/charts.css")
    finders.get_finder.cache_clear()
    assert isinstance(path, str)
    css = Path(path).read_text()
    bars = [Bar("a", 1, "1", mark) for mark, _ in LEGEND]
    classes = set(" ".join(re.findall(r'class="([^"]*)"', rendered(chart(bars=bars, legend=LEGEND)))).split())
    assert classes == {name for name in classes if f".{name}" in css}
    assert not re.search(r"url\(|@import", css)
