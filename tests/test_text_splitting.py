"""Raw posts become words without losing a character or its place."""

import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modeling_umgf.text_splitting import split_post

DATA = Path(__file__).parents[1].parent / "shared" / "data"


def words(text: str) -> list[str]:
    return [word for word, _, _ in split_post(text)]


PIECES = [
    "http://",
    "t.co/a",
    "@",
    "#",
    "&amp;",
    "'",
    ".",
    " ",
    "\u00a0",
    "\u200d",
    "\ufe0f",
    "👍",
    "🏽",
    "🇩🇪",
    ":)",
    "a",
    "1",
]


@settings(deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES)).map("".join)))
@example("a \r\n\t\u00a0\u2003\u3000b\x1fc\u0600 \u0301 \u200b\ufeff\u202e")
@example("👨‍👩‍👧‍👦🇩🇪🇫1️⃣ नमस्ते שָׁלוֹם 東京 เที่ยว")
def test_words_are_slices_of_the_text_and_nothing_but_spaces_lies_between_them(text: str) -> None:
    position = 0
    for word, start, end in split_post(text):
        assert text[start:end] == word and start >= position
        assert word and not any(map(str.isspace, word))
        assert not text[position:start].strip()
        position = end
    assert not text[position:].strip()


@pytest.mark.parametrize(
    "word",
    [
        "http://t.co/aHWil2",
        "https://en.wikipedia.org/wiki/Foo_(bar)",
        "https://example.org/a?b=c&amp;d=e#f",
        "http://t.co…",
        "https:/…",
        "www.example.org/",
        "pic.twitter.com/AbC",
        "espn.com",
        "name@example.org",
        "@user_1",
        "#Bronx",
        "#東京",
        "#1",
        "$AAPL",
        "&amp;",
        "&#39;",
        ":)",
        ":-(",
        ";)",
        ":'(",
        ":D",
        ":/",
        "<3",
        "</3",
        "^_^",
        "-_-",
        "¯\\_(ツ)_/¯",
        "👍",
        "👍🏽",
        "❤️",
        "☺️",
        "1️⃣",
        "#️⃣",
        "🇩🇪",
        "👨‍👩‍👧‍👦",
        "👩🏽‍🚀",
        "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
        "10,000",
        "1.8",
        "1.5m",
        "10:30",
        "9/11",
        "U.S.",
        "p.m.",
        "e.g.",
        "T-Mobile",
        "12-year-old",
        "A$AP",
        "cafe\u0301",
        "हिन्दी",
        "می\u200cخواهم",
        "co\u00adoperate",
        "한국어",
    ],
)
def test_stays_one_word_also_between_others_and_before_punctuation(word: str) -> None:
    assert words(word) == [word]
    assert words(f"so {word} it") == ["so", word, "it"]
    assert words(f"{word}, so") == [word, ",", "so"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I'm at O’Brien's", "I ' m at O ’ Brien ' s"),
        ("RT @user: #tag#other hey!!", "RT @user : #tag #other hey ! !"),
        ("great:) (https://t.co/abc).", "great :) ( https://t.co/abc ) ."),
        ('"https://t.co/abc"', '" https://t.co/abc "'),
        ("https://t.co/abc❤️ https://t.co/abcは", "https://t.co/abc ❤️ https://t.co/abc は"),
        ("https://t.co/a&lt;b", "https://t.co/a &lt; b"),
        ("H&amp;M &gt;:)", "H &amp; M &gt; :)"),
        ("note:(see) x:D3", "note : ( see ) x : D3"),
        ("🇩🇪🇫🇷👍👍ok👩🏽‍🚀go", "🇩🇪 🇫🇷 👍 👍 ok 👩🏽‍🚀 go"),
        ("$1.8m 50% J.K. Rowling", "$ 1.8m 50 % J.K. Rowling"),
        ("the end.I am 5...", "the end . I am 5 . . ."),
        ("bath--and and/or", "bath - - and and / or"),
        ("iPhone発売 東京タワーに", "iPhone 発 売 東 京 タ ワ ー に"),
        ("مرحبا بالعالم! שלום, עולם", "مرحبا بالعالم ! שלום , עולם"),
        ("a\u00a0b\u2003c\u3000d\u202fe\u2028f", "a b c d e f"),
        ("\u200ba \ufe0f", "\u200b a \ufe0f"),
        ("", ""),
        (" \n\u00a0", ""),
    ],
)
def test_splits_like_the_twitter_data(text: str, expected: str) -> None:
    assert words(text) == expected.split()


@pytest.mark.parametrize(
    "unit", ["a", "(", "ab.", "a@", "a-", "1.", "&", ":", "-", "http://(", "www.", "\u0301", "👍\u200d"]
)
def test_long_nonsense_is_split_in_linear_time(unit: str) -> None:
    start = time.perf_counter()
    split_post(unit * 10_000)
    assert time.perf_counter() - start < 2


@pytest.mark.skipif(not DATA.exists(), reason="needs the Twitter data")
@pytest.mark.parametrize(("year", "largest_share"), [("2015", 0.01), ("2017", 0.001)])
def test_words_of_the_twitter_data_are_seldom_split_further(year: str, largest_share: float) -> None:
    lines = (DATA / f"twitter{year}" / "train.txt").read_text(encoding="utf-8").split("\n")
    gold = [line.split("\t")[0] for line in lines if "\t" in line]
    split_further = sum(len(words(word)) > 1 for word in gold)
    assert split_further / len(gold) < largest_share
