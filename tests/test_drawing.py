"""What a drawn post shows: boxes where they are, words in the colours of their objects, nothing unescaped."""

from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image, ImageColor

from modeling_umgf import drawing, fonts
from modeling_umgf.drawing import COLORS, GENERAL_COLOR, draw_objects, objects_to_html
from modeling_umgf.fonts import text_width

WORDS = ["<b>Anna</b>", "&", "Bob", "in", "Rome"]
GENERAL = {"box": [0, 0, 400, 200], "score": 0.9, "query": "person", "phrase": None}
ANNA = {"box": [40, 60, 120, 160], "score": 0.8, "query": "<script>", "phrase": {"start": 0, "end": 1}}
ROME = {"box": [200, 50, 390, 190], "phrase": {"start": 4, "end": 5}}
OBJECTS = [GENERAL, ANNA, ROME]
PICTURE = Image.new("RGB", (400, 200), "white")


def has_color(image: Image.Image, color: str, box: tuple[int, int, int, int]) -> bool:
    return (np.asarray(image.crop(box)) == ImageColor.getrgb(color)).all(axis=2).any()


def test_boxes_are_drawn_at_the_scale_of_the_drawing():
    drawing = draw_objects(PICTURE, WORDS, OBJECTS)
    assert drawing.width == 800
    assert drawing.getpixel((81, 200)) == ImageColor.getrgb(COLORS[0])  # left edge of Anna's box at 2 * 40
    assert drawing.getpixel((238, 200)) == ImageColor.getrgb(COLORS[0])
    assert drawing.getpixel((160, 319)) == ImageColor.getrgb(COLORS[0])
    assert drawing.getpixel((160, 250)) == (255, 255, 255)
    assert drawing.getpixel((401, 200)) == ImageColor.getrgb(COLORS[1])


def test_words_have_the_colour_of_their_object_and_general_ones_colour_no_word():
    drawing = draw_objects(PICTURE, WORDS, OBJECTS)
    words = (0, 402, 800, 440)
    assert has_color(drawing, COLORS[0], words) and has_color(drawing, COLORS[1], words)
    assert not has_color(drawing, GENERAL_COLOR, words)


def test_a_post_without_picture_objects_or_words_can_be_drawn():
    assert draw_objects(None, WORDS, []).height < 100
    assert draw_objects(PICTURE, [], []).height > 400
    assert draw_objects(Image.new("RGB", (1, 1)), WORDS, [{"box": [0, 0, 1, 1], "phrase": None}]).width == 800
    assert "<svg" not in objects_to_html(None, [], [])


def test_long_posts_take_more_lines():
    assert draw_objects(None, WORDS * 20, []).height > draw_objects(None, WORDS, []).height + 60


def test_entities_add_a_line_below_the_words():
    assert draw_objects(None, WORDS, [], [(0, 1, "PER")]).height > draw_objects(None, WORDS, []).height


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags = []
        self.open = []
        self.text = []
        self.styles = {}

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.open.append((tag, dict(attributes)))

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if data.strip():
            self.text.append(data.strip())
            self.styles[data.strip()] = self.open[-1][1].get("style", "")


def read(markup: str) -> Reader:
    reader = Reader()
    reader.feed(markup)
    assert reader.open == []
    return reader


def test_html_is_well_formed_self_contained_and_escaped():
    markup = objects_to_html(PICTURE, WORDS, OBJECTS, [(0, 1, "P<R"), (2, 5, "LOC")])
    page = read(markup)
    assert not {"b", "script", "link", "img"} & set(page.tags)
    assert "http" not in markup
    assert "<b>Anna</b>" in page.text and "P<R" in page.text


def test_html_colours_words_like_their_boxes_and_says_the_edges():
    page = read(objects_to_html(PICTURE, WORDS, OBJECTS))
    assert COLORS[0] in page.styles["<b>Anna</b>"] and COLORS[1] in page.styles["Rome"]
    assert page.styles["Bob"] == ""
    assert "0 person 0.90: linked to every word" in page.text
    assert "1 <script> 0.80: linked to <b>Anna</b>" in page.text
    assert "2 object: linked to Rome" in page.text
    assert page.tags.count("rect") == 3


@pytest.mark.parametrize("entities", [[(0, 2, "PER")], [(4, 5, "LOC")], [(0, 1, "PER"), (1, 5, "LOC")], []])
def test_html_marks_entities_over_all_their_words(entities):
    page = read(objects_to_html(None, WORDS, [], entities))
    assert [text for text in page.text if text in {"PER", "LOC"}] == [kind for _, _, kind in entities]
    assert page.tags.count("sub") == len(entities)


ARABIC = ["مرحبا", "New", "York", "جميل"]


def places(words: list[str], types: dict[int, str] | None = None) -> dict[int, tuple[float, float]]:
    """Left and right edge of each word of a line."""
    (row,) = drawing._lines(words, types or {})
    return {i: (x, x + width) for i, x, width in row}


def test_words_from_right_to_left_are_drawn_in_their_order_and_those_between_in_theirs():
    edges = places(ARABIC)
    assert sorted(edges, key=edges.get) == [3, 1, 2, 0]
    assert edges[0][1] == pytest.approx(800 - 12)
    edges = places(["see", "مرحبا", "جميل", "there"])
    assert sorted(edges, key=edges.get) == [0, 2, 1, 3]
    assert sorted(places(WORDS), key=places(WORDS).get) == list(range(5))


def test_the_browser_is_told_to_find_the_direction():
    assert '<p dir="auto"' in objects_to_html(None, ARABIC, [])


def test_types_longer_than_their_words_do_not_overlap():
    edges = places(["I", "O"], {0: "ORGANISATION", 1: "PERSON"})
    assert edges[1][0] - edges[0][0] >= text_width("ORGANISATION", 12)


def test_labels_of_boxes_in_one_place_do_not_overlap():
    taken = []
    for _ in range(5):
        taken.append(drawing._free_place(3, 150, 90, 22, (400, 200), taken))
    for i, (x0, y0, x1, y1) in enumerate(taken):
        assert 0 <= x0 < x1 <= 400 and 0 <= y0 < y1 <= 200
        for other in taken[:i]:
            assert y1 <= other[1] or other[3] <= y0


def test_letters_are_drawn_in_a_font_that_has_them_and_what_no_font_has_is_said(caplog, monkeypatch):
    default = fonts._font("Anna", 17)
    assert not fonts._has_letters(default, "Москва")
    monkeypatch.setattr(fonts, "_installed", lambda: [])
    for cached in (fonts._font, fonts._warn):
        cached.cache_clear()
    assert fonts._font("Москва", 17) is default
    assert "has the letters CYRILLIC" in caplog.text
    monkeypatch.undo()
    fonts._font.cache_clear()
    with_letters = fonts._font("Москва", 17)
    assert with_letters is default or fonts._has_letters(with_letters, "Москва")
