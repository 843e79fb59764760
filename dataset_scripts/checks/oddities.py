"""What can be wrong with a split of posts: one function per question, plain numbers as answers."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from datasets import Dataset, Image
from PIL import Image as PILImage

from modeling_umgf.files import file_hash
from modeling_umgf.labels import entity_spans
from modeling_umgf.pictures import open_picture
from modeling_umgf.split_counts import count_split, tag_names

_INVISIBLE = {"Cf", "Cc", "Zs", "Zl", "Zp"}  # formats, controls, spaces


def check_entities(split: Dataset) -> dict:
    """Entities, which begin with B- here, and orphans: an I- that continues no entity of its type."""
    counts = count_split(split)
    begun = counts.starts.total()
    longest = 0
    without = 0
    after_stop = 0
    for words, tags in zip(split["tokens"], tag_names(split), strict=True):
        for start, end, _ in entity_spans(tags, strict=True):
            longest = max(longest, end - start)
        without += not any(tag.startswith("B-") for tag in tags)
        for word, (before, tag) in zip(words, pairwise(tags), strict=False):
            after_stop += word == "." and before == "O" and tag.startswith("I-")
    return {
        "posts": counts.posts,
        "words": counts.words,
        **{f"B-{kind}": number for kind, number in sorted(counts.starts.items())},
        "entities that begin with B-": begun,
        "entities, lenient": counts.entities,
        "entities per post": round(begun / counts.posts, 2),
        "posts without B-": without,
        "longest entity (words)": longest,
        "orphan I-": counts.orphans.total(),
        **{f"orphan {kind}": number for kind, number in sorted(counts.orphan_kinds.items())},
        "orphan O->I after a full stop": after_stop,
        **{f"orphan I-{kind}": number for kind, number in sorted(counts.orphans.items())},
    }


def check_words(split: Dataset) -> dict:
    """Peculiarities of the words; a word of two kinds counts for both."""
    found = Counter()
    for words, tags in zip(split["tokens"], tag_names(split), strict=True):
        text = set(words)
        found["posts with RT"] += "RT" in text
        found["posts cut off (…)"] += any("…" in word for word in words)
        for word, tag, after in zip(words, tags, [*words[1:], ""], strict=True):
            found["http words"] += word.startswith("http")
            found["http words in entities"] += word.startswith("http") and tag != "O"
            found["@user words"] += word.startswith("@") and len(word) > 1
            found["lone @"] += word == "@"
            found["#tag words"] += word.startswith("#") and len(word) > 1
            found["#tag words with B-"] += word.startswith("#") and len(word) > 1 and tag.startswith("B-")
            found["lone #"] += word == "#"
            found["HTML remnant &amp"] += word == "&amp"
            found["HTML remnants &lt &gt"] += word in ("&lt", "&gt")
            found["@user split at _"] += word.startswith("@") and after == "_"
            found["emoji words"] += any(ord(character) >= 0x1F000 for character in word)
            hidden = [character for character in word if _is_invisible(character)]
            if len(hidden) == len(word):
                found[f"words of {_code_points(word)} only"] += 1
            else:
                found.update({f"words with {_code_points(character)}": 1 for character in sorted(set(hidden))})
        found["decimals in three words"] += len(re.findall(r"(?<!\S)\d+ \. \d+(?!\S)", " ".join(words)))
    return {name: number for name, number in found.items() if number}


def check_pieces(split: Dataset, tokenize: Callable[[str], list]) -> dict:
    """Words for which a tokenizer has no piece, which systems tend to lose silently.

    Args:
        tokenize: a word to its pieces, without special ones.
    """
    counts = Counter(word for words in split["tokens"] for word in words)
    lost = Counter({word: number for word, number in counts.items() if not tokenize(word)})
    by_word = {f"without pieces: {_code_points(word)}": number for word, number in lost.most_common()}
    return {"words without pieces": lost.total(), **by_word}


def check_phrases(split: Dataset) -> dict:
    """Noun phrases that no object was found for; posts nobody looked at (`objects` null) are counted apart."""
    found = Counter()
    if "objects" not in split.features:
        return {}
    columns = [name for name in ("noun_phrases", "objects") if name in split.features]
    for row in split.select_columns(columns):
        if row["objects"] is None:
            found["posts nobody looked at"] += 1
            continue
        found["posts without an object"] += not row["objects"]
        found["objects of general queries"] += sum(one["phrase"] is None for one in row["objects"])
        linked = {(one["phrase"]["start"], one["phrase"]["end"]) for one in row["objects"] if one["phrase"]}
        phrases = {(phrase["start"], phrase["end"]) for phrase in row.get("noun_phrases") or []}
        found["noun phrases"] += len(phrases)
        found["noun phrases without an object"] += len(phrases - linked)
    return dict(found)


class PicturePrint(NamedTuple):
    """What a picture is recognised by.

    Args:
        content: hash of its file.
        look: difference hash of what it shows; copies in other sizes have the same.
    """

    content: str
    look: str


def picture_prints(split: Dataset, tiny: int = 32) -> tuple[dict[str, PicturePrint], Counter]:
    """Recognise pictures by their bytes and by what they show.

    Args:
        split: a dataset whose pictures can be opened (`check_pictures`).
        tiny: a picture with a side below this many pixels is tiny.

    Returns:
        The print of every post with a picture, by id; and the number of tiny pictures.
    """
    prints = {}
    found = Counter()
    if "image" in split.features:
        for row in split.select_columns(["id", "image"]).cast_column("image", Image(decode=False)):
            cell = row["image"]
            if cell is not None:
                picture = open_picture(cell)
                found["tiny pictures"] += min(picture.size) < tiny
                content = file_hash(cell["path"] if cell["bytes"] is None else cell["bytes"])
                prints[row["id"]] = PicturePrint(content, _difference_hash(picture))
    return prints, found


def count_repeated(values: Iterable[str]) -> int:
    """How many of the values occur more than once."""
    return sum(number for number in Counter(values).values() if number > 1)


def check_overlap(splits: Mapping[str, Dataset]) -> dict:
    """Ids and texts that occur twice. Texts are compared without web addresses and in lower case."""
    texts = {}
    ids = {}
    labels = defaultdict(set)
    places = defaultdict(list)
    for name, split in splits.items():
        ids[name] = split["id"][:]
        texts[name] = []
        for post, words, tags in zip(ids[name], split["tokens"], tag_names(split), strict=True):
            kept = [(word.lower(), tag) for word, tag in zip(words, tags, strict=True) if not word.startswith("http")]
            text = " ".join(word for word, _ in kept)
            texts[name].append(text)
            labels[text].add(tuple(tag for _, tag in kept))
            places[text].append(f"{name} {post}")
    found = {}
    for name, own in ids.items():
        found[f"repeated ids inside {name}"] = len(own) - len(set(own))
    for name, own in texts.items():
        found[f"repeated texts inside {name}"] = len(own) - len(set(own))
    names = list(splits)
    for number, later in enumerate(names):
        for earlier in names[:number]:
            known_texts = set(texts[earlier])
            known_ids = set(ids[earlier])
            found[f"{later} posts whose text is in {earlier}"] = sum(text in known_texts for text in texts[later])
            found[f"{later} ids that are in {earlier}"] = sum(one in known_ids for one in ids[later])
    found["texts with different labels"] = sum(len(versions) > 1 for versions in labels.values())
    found["posts with equal texts"] = [same for same in places.values() if len(same) > 1]
    if "train" in splits:
        known = set(_surface_forms(splits["train"]))
        for name in names:
            own = list(_surface_forms(splits[name]))
            if name != "train" and own:
                share = 100 * sum(text in known for text in own) / len(own)
                found[f"entities of {name} whose text is an entity of train (%)"] = round(share, 2)
    return found


def compare_labels(one: Mapping[str, Dataset], other: Mapping[str, Dataset]) -> dict:
    """Differences of two copies of a dataset, post by post: what has to be changed in `one` to get `other`.

    Returns:
        Per split of both: posts in one copy only, posts with other words, posts with other labels, each changed
        label with its number ("B-MISC -> O"), and the ids.
    """
    return {name: _compare_split(one[name], other[name]) for name in one if name in other}


def _compare_split(one: Dataset, other: Dataset) -> dict:
    rows = _by_id(one)
    others = _by_id(other)
    both = [key for key in rows if key in others]
    other_words = 0
    relabelled = []
    changes = Counter()
    for key in both:
        words, tags = rows[key]
        new_words, new_tags = others[key]
        if words != new_words:
            other_words += 1
        elif tags != new_tags:
            relabelled.append(key)
            changes.update(f"{old} -> {new}" for old, new in zip(tags, new_tags, strict=True) if old != new)
    return {
        "only in the first": len(rows) - len(both),
        "only in the second": len(others) - len(both),
        "posts with other words": other_words,
        "posts with other labels": len(relabelled),
        "labels changed": changes.total(),
        **dict(changes.most_common()),
        "ids only in the first": [key for key in rows if key not in others],
        "ids only in the second": [key for key in others if key not in rows],
        "ids with other labels": relabelled,
    }


def _by_id(split: Dataset) -> dict[str, tuple[list[str], list[str]]]:
    """Words and tags of each post."""
    words_and_tags = zip(split["tokens"], tag_names(split), strict=True)
    return dict(zip(split["id"], words_and_tags, strict=True))


def _surface_forms(split: Dataset) -> Iterator[str]:
    for words, tags in zip(split["tokens"], tag_names(split), strict=True):
        for start, end, _ in entity_spans(tags, strict=True):
            yield " ".join(words[start:end]).lower()


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character) in _INVISIBLE or character in "\ufe0e\ufe0f\ufffd"


def _code_points(text: str) -> str:
    return " ".join(f"U+{ord(character):04X}" for character in text) if text else "no character"


def _difference_hash(picture: PILImage.Image) -> str:
    """64 bits: is each of 8 x 8 cells brighter than its right neighbour?"""
    grey = np.asarray(picture.convert("L").resize((9, 8), PILImage.Resampling.BOX), dtype=np.int16)
    return np.packbits(grey[:, :-1] > grey[:, 1:]).tobytes().hex()
