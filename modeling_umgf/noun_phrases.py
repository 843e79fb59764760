"""Noun phrases of a post as spans of its own words: what the visual grounding is asked to find."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

logger = logging.getLogger(__name__)

Extractor = Callable[[Sequence[str]], Iterable[Any]]

GRAMMAR = r"NP: {(<DT|PRP\$|CD|JJ.*><CD|JJ.*|VBN>*)?<HASHTAG|NN.*><NN.*>*}"
"""Base noun phrases in NLTK's chunk grammar, over Penn Treebank tags; a hashtag can only begin the nouns."""

_LINK = re.compile(r"https?:|www\.|t\.co/|pic\.twitter\.com", re.IGNORECASE)
_APOSTROPHES = {"'", "’", "‘", "`"}
_CONTRACTIONS = {"s", "t", "m", "d", "re", "ll", "ve"}
_TITLES = frozenset("Dr Mr Mrs Ms St Jr Sr Prof Gov Sen Rep Gen Col Lt Sgt Mt Ft".split())
# What the tagger, made for newspapers, would take for nouns: HTML remnants, chat spellings, and days as adverbs.
_STANDARD_WORDS = dict(
    pair.split("=")
    for pair in (
        '&amp=and &lt=: &gt=: &quot=" '
        "u=you ur=your r=are n=and w=with b=be y=why c=see x=: "
        "im=I ill=I ive=I dont=do cant=can cannot=can wont=will didnt=did "
        "til=until till=until lol=! lmao=! omg=! pls=! please=! wow=! "
        "today=now tonight=now tomorrow=soon yesterday=then"
    ).split()
)
# Headlines capitalise these, and the tagger takes them for names. Words that are names or initialisms as well
# (Will, May, US, IT, WHO, AM, OR) are not in the list.
_FUNCTION_WORDS = frozenset(
    "a an the no this that these those my your his her its our their and but nor so of in on at by for from with to "
    "into onto over under after before during between through about against as is are was were be been has have had do "
    "does did not than then when where why how what which if because while until".split()
)


def find_noun_phrases(
    words: Sequence[str], extractor: str | Extractor = "nltk", merge_of: bool = False
) -> list[dict[str, int]]:
    """Find the noun phrases of one post.

    The words are taken as they are, never split or joined. @users, links, RT and punctuation end a phrase and are never
    at its edge; the full stop of "Dr . Seuss" is part of the name, and a hashtag counts as the word behind its sign.

    Args:
        words: the words of the post.
        extractor: "nltk" (tagger and chunk grammar; without its data "capitals", with a warning), "spacy" or
            `"spacy:<pipeline>"`, "capitals" (runs of capitalised words), or any callable from words to spans, each a
            (start, end) pair or {"start", "end"}.
        merge_of: join two phrases with nothing but "of" between them.

    Returns:
        Spans {"start", "end"} over `words`, half open, sorted.

    Raises:
        ValueError: no such extractor, or it returned something that is not a span of these words.
        ImportError: spaCy or its pipeline is not installed; the message says how to get it.
    """
    found = set()
    for span in noun_phrase_extractor(extractor)(words):
        start, end = _checked(span, words)
        start, end = _without_edges(words, start, end)
        if start < end:
            found.add((start, end))
    spans = sorted(found)
    if merge_of:
        spans = _merged_over_of(words, spans)
    return [{"start": start, "end": end} for start, end in spans]


def noun_phrase_extractor(extractor: str | Extractor) -> Extractor:
    """The function behind the name of an extractor, or its stand-in where the data are missing.

    Args:
        extractor: see `find_noun_phrases`.
    """
    if callable(extractor):
        return extractor
    if extractor == "nltk":
        return nltk_noun_phrases if _nltk_tagger() else capitalised_phrases
    if extractor == "capitals":
        return capitalised_phrases
    if extractor.partition(":")[0] == "spacy":
        return functools.partial(spacy_noun_phrases, pipeline=extractor.partition(":")[2] or "en_core_web_sm")
    raise ValueError(f'there is no noun phrase extractor "{extractor}"; use "nltk", "spacy", "capitals" or a callable')


def nltk_noun_phrases(words: Sequence[str]) -> list[tuple[int, int]]:
    """Noun phrases by NLTK's averaged perceptron tagger and `GRAMMAR`."""
    texts = [_text_for_tagger(words, i) for i in range(len(words))]
    shown = [i for i, text in enumerate(texts) if text]
    tags = ["."] * len(words)
    for i, (_, tag) in zip(shown, _nltk_tagger().tag([texts[i] for i in shown]), strict=True):
        tags[i] = tag
    for i in range(len(words)):
        if _ends_phrase(words, i):
            tags[i] = "."
        elif words[i].startswith("#") and tags[i].startswith("NN"):
            tags[i] = "HASHTAG"
        elif i and words[i].istitle() and tags[i] in {"VB", "VBG", "VBN", "VBP"}:
            tags[i] = "NNP"  # a capital inside a sentence: Lessing in "Doris Lessing" is no verb
        if _is_mark_in_name(words, i):
            tags[i - 1 : i + 1] = ["NNP", "NNP"]
    if not words:
        return []
    chunks = _nltk_chunker().parse(list(enumerate(tags)))
    return [(chunk[0][0], chunk[-1][0] + 1) for chunk in chunks if not isinstance(chunk, tuple)]


def capitalised_phrases(words: Sequence[str]) -> list[tuple[int, int]]:
    """Runs of capitalised words: what is left of noun phrases without a tagger."""
    spans: list[tuple[int, int]] = []
    for i in range(len(words)):
        capitalised = _text_for_tagger(words, i)[:1].isupper() and not _ends_phrase(words, i)
        if not capitalised and not _is_mark_in_name(words, i):
            continue
        if spans and spans[-1][1] == i and not words[i].startswith("#"):
            spans[-1] = (spans[-1][0], i + 1)
        else:
            spans.append((i, i + 1))
    return spans


def spacy_noun_phrases(words: Sequence[str], pipeline: str = "en_core_web_sm") -> list[tuple[int, int]]:
    """Noun chunks of a spaCy pipeline, without those that are only a pronoun."""
    process, document_class = _spacy_pipeline(pipeline)
    texts = [_text_for_tagger(words, i) or "-" for i in range(len(words))]
    chunks = process(document_class(process.vocab, words=texts)).noun_chunks
    return [(chunk.start, chunk.end) for chunk in chunks if chunk.root.pos_ != "PRON"]


@functools.cache
def _nltk_tagger() -> Any:
    """NLTK's tagger, or None (said once) where the library or its data are missing."""
    try:
        from nltk.tag import PerceptronTagger

        return PerceptronTagger(lang="eng")
    except (ImportError, LookupError):
        logger.warning(
            "NLTK's English tagger is missing, so noun phrases are runs of capitalised words, which differ in most "
            "posts; to get it: pip install nltk && python -m nltk.downloader "
            "averaged_perceptron_tagger_eng; without network: put averaged_perceptron_tagger_eng.zip, as it is, into "
            "<folder>/taggers and set NLTK_DATA=<folder>"
        )
        return None


@functools.cache
def _nltk_chunker() -> Any:
    try:
        from nltk.chunk import RegexpParser
    except ImportError as error:
        raise ImportError("noun phrases need NLTK: pip install nltk") from error
    return RegexpParser(GRAMMAR)


@functools.cache
def _spacy_pipeline(name: str) -> Any:
    try:
        import spacy
        from spacy.tokens import Doc

        return spacy.load(name), Doc
    except (ImportError, OSError) as error:
        raise ImportError(
            f'noun phrases by spaCy need it and its pipeline "{name}": '
            f"pip install spacy && python -m spacy download {name}"
        ) from error


def _text_for_tagger(words: Sequence[str], i: int) -> str:
    """Word i as the tagger knows it, "" for what it should not see at all."""
    word = words[i]
    if word in {"RT", "#", "@"} or _LINK.match(word) or not word.isprintable() or word.isspace():
        return ""
    if word in _STANDARD_WORDS:
        return _STANDARD_WORDS[word]
    if _is_contraction(words, i):
        return "'" + word
    if word in _APOSTROPHES:
        return "" if i + 1 < len(words) and _is_contraction(words, i + 1) else '"'
    if not _has_letter_or_digit(word):
        return word if word.isascii() else ":"
    word = word.lstrip("#@")
    return word.lower() if word.lower() in _FUNCTION_WORDS else word


def _ends_phrase(words: Sequence[str], i: int) -> bool:
    """Whether word i is a link, an @user, RT, punctuation, an emoji, chat, or what follows an apostrophe."""
    word = words[i]
    return (
        word == "RT"
        or word.startswith("@")
        or (i > 0 and words[i - 1] == "@")
        or word in _STANDARD_WORDS
        or _LINK.match(word) is not None
        or _is_contraction(words, i)
        or not _has_letter_or_digit(word)
    )


def _has_letter_or_digit(word: str) -> bool:
    return any(character.isalnum() for character in word)


def _is_contraction(words: Sequence[str], i: int) -> bool:
    return i > 0 and words[i - 1] in _APOSTROPHES and words[i].lower() in _CONTRACTIONS


def _is_mark_in_name(words: Sequence[str], i: int) -> bool:
    """Whether word i is the stop or apostrophe inside a name: "Dr . Seuss", "J . K . Rowling", "Shaquille O ' Neal"."""
    if i == 0 or i + 1 == len(words) or not words[i + 1][:1].isupper() or _ends_phrase(words, i + 1):
        return False
    before = words[i - 1]
    if words[i] == ".":
        return before in _TITLES or (len(before) == 1 and before.isupper() and before != "I")
    return words[i] in _APOSTROPHES and before in {"O", "D"}


def _checked(span: Any, words: Sequence[str]) -> tuple[int, int]:
    try:
        start, end = (span["start"], span["end"]) if isinstance(span, dict) else span
        if 0 <= start < end <= len(words):
            return int(start), int(end)
    except (TypeError, ValueError, KeyError):
        pass
    raise ValueError(f"the extractor returned {span!r}, which is not a (start, end) span of {len(words)} words")


def _without_edges(words: Sequence[str], start: int, end: int) -> tuple[int, int]:
    while start < end and _ends_phrase(words, start):
        start += 1
    while start < end and _ends_phrase(words, end - 1):
        end -= 1
    return start, end


def _merged_over_of(words: Sequence[str], spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in spans:
        if merged and start == merged[-1][1] + 1 and words[start - 1].lower() == "of":
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return merged
