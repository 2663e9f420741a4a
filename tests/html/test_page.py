"""The blocks of a page: what is escaped, what is flush right, and what stands where."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customcnn.html.page import Html, Section, data_uri, group, matrix, page, score, subheading, table


def test_a_score_by_hand():
    block = score("Accuracy", 0.75, 0.25, 1.0, "of <cells>")
    assert '<span class="value">0.750</span>' in block
    assert '<span class="interval">0.250 to 1.000</span>' in block
    assert 'style="left:25.0%;width:75.0%"' in block and '<b style="left:75.0%">' in block
    assert "of &lt;cells&gt;" in block


def test_a_score_without_value_or_interval():
    assert "undefined" in score("x", None, None, None)
    lonely = score("x", 0.5, None, None)
    assert "0.500" in lonely and "no interval" in lonely and 'class="range"' not in lonely


@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(-2, 2))
def test_the_bar_of_a_score_stays_inside(value, low, high):
    low, value, high = sorted((low, value, high))
    left, width, place = map(float, re.findall(r"(?:left|width):(-?[\d.]+)%", score("x", value, low, high)))
    assert 0 <= left <= place <= 100 and 0 <= width <= 100 and left + width <= 100.1


def test_a_matrix_by_hand():
    block = matrix(["a<b", "c"], [[3, 1], [0, 0]], "Counts")
    assert "<caption>Counts</caption>" in block and "a&lt;b" in block
    assert '<td style="--share:0.750">3<small>75.0%</small></td>' in block
    assert '<td style="--share:0.000">0<small>0.0%</small></td>' in block  # a class without images
    with pytest.raises(ValueError, match="zip"):
        matrix(["a"], [[1, 2], [3, 4]])


def test_numbers_and_intervals_stand_flush_right_below_their_heading():
    block = table(["class", "share", "interval", "word"], [["1", "0.5", "0.250 to 1.000", "one"], ["2", 3, "–", "two"]])
    assert '<th scope="col">class</th><th scope="col" class="number">share</th>' in block
    assert '<td class="number">0.250 to 1.000</td>' in block and '<td class="number">–</td>' in block
    assert '<th scope="col">word</th>' in block and "<td>one</td>" in block


def test_long_words_and_sentences_get_room():
    word, sentence = "x" * 60, "some words " * 8
    block = table(["a", "b", "c"], [[word, sentence, "short"]])
    assert f'<th scope="row" class="long">{word}</th>' in block
    assert '<td class="prose">' in block and "<td>short</td>" in block


def test_lead_stands_between_the_banner_and_the_links_and_the_footer_at_the_end():
    sections = [Section(name, [subheading("In <it>")]) for name in ("One", "Two", "Three")]
    text = page(
        "T", sections, ["Note"], lead=["First & foremost", group("scores", Html("<i>x</i>"))], footer="The <end>"
    )
    places = ["Note", "First &amp; foremost", '<div class="scores"><i>x</i></div>', "<nav", "In &lt;it&gt;", "<footer>"]
    assert [text.index(place) for place in places] == sorted(text.index(place) for place in places)
    assert "The &lt;end&gt;" in text
    assert "<footer>" not in page("T", sections)


def test_a_picture_of_another_kind():
    assert data_uri(b"abc", "jpeg") == "data:image/jpeg;base64,YWJj"
