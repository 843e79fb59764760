"""What can be wrong with a split of tweets: one function per question, plain numbers as answers."""

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
from datasets import Dataset, Image
from PIL import Image as PILImage

from modeling_umgf.labels import entity_spans
from modeling_umgf.pictures import open_picture

from .counts import count_split, tag_names

_INVISIBLE = {"Cf", "Cc", "Zs", "Zl", "Zp"}  # formats, controls, spaces


def check_entities(split: Dataset) -> dict:
    """Entities, which begin with B- here, and orphans: an I- that continues no entity of its type."""
    counts = count_split(split)
    after_stop = sum(
        (before, tag[:2], word) == ("O", "I-", ".")
        for words, tags in zip(split["tokens"], tag_names(split), strict=True)
        for word, before, tag in zip(words, tags, tags[1:], strict=False)
    )
    lengths = [end - start for tags in tag_names(split) for start, end, _ in entity_spans(tags, strict=True)]
    begun = counts.starts.total()
    return {
        "tweets": counts.tweets,
        "words": counts.words,
        **{f"B-{kind}": number for kind, number in sorted(counts.starts.items())},
        "entities that begin with B-": begun,
        "entities, lenient": counts.entities,
        "entities per tweet": round(begun / counts.tweets, 2),
        "tweets without B-": sum(not any(tag.startswith("B-") for tag in tags) for tags in tag_names(split)),
        "longest entity (words)": max(lengths, default=0),
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
        found["tweets with RT"] += "RT" in text
        found["tweets cut off (…)"] += any("…" in word for word in words)
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
                found.update({f"words with {_code_points(character)}": 1 for character in set(hidden)})
        found["decimals in three words"] += len(re.findall(r"(?<!\S)\d+ \. \d+(?!\S)", " ".join(words)))
    return {name: number for name, number in found.items() if number}


def check_pieces(split: Dataset, tokenize: Callable[[str], list]) -> dict:
    """Words for which a tokenizer has no piece, which systems tend to lose silently.

    Args:
        tokenize: A word to its pieces, without special ones.
    """
    counts = Counter(word for words in split["tokens"] for word in words)
    lost = Counter({word: number for word, number in counts.items() if not tokenize(word)})
    by_word = {f"without pieces: {_code_points(word)}": number for word, number in lost.most_common()}
    return {"words without pieces": lost.total(), **by_word}


def check_phrases(split: Dataset) -> dict:
    """Noun phrases that no object was found for; tweets nobody looked at (`objects` null) are counted apart."""
    found = Counter()
    if "objects" not in split.features:
        return {}
    columns = [name for name in ("noun_phrases", "objects") if name in split.features]
    for row in split.select_columns(columns):
        if row["objects"] is None:
            found["tweets nobody looked at"] += 1
            continue
        found["tweets without an object"] += not row["objects"]
        found["objects of general queries"] += sum(one["phrase"] is None for one in row["objects"])
        linked = {(one["phrase"]["start"], one["phrase"]["end"]) for one in row["objects"] if one["phrase"]}
        phrases = {(phrase["start"], phrase["end"]) for phrase in row.get("noun_phrases") or []}
        found["noun phrases"] += len(phrases)
        found["noun phrases without an object"] += len(phrases - linked)
    return dict(found)


def picture_prints(split: Dataset, tiny: int = 32) -> tuple[dict[str, tuple[str, str]], Counter]:
    """Recognise pictures by their bytes and by what they show.

    Args:
        split: A dataset whose pictures can be opened (`picture_check`).
        tiny: A picture with a side below this many pixels is tiny.

    Returns:
        Of every tweet with a picture: id -> (SHA-256 of the file, difference hash of the picture); and the number of
        tiny pictures.
    """
    prints, found = {}, Counter()
    if "image" in split.features:
        for row in split.select_columns(["id", "image"]).cast_column("image", Image(decode=False)):
            if row["image"] is not None:
                picture = open_picture(row["image"])
                found["tiny pictures"] += min(picture.size) < tiny
                content = row["image"]["bytes"]
                if content is None:
                    with open(row["image"]["path"], "rb") as file:
                        content = file.read()
                prints[row["id"]] = (hashlib.sha256(content).hexdigest(), _difference_hash(picture))
    return prints, found


def repeated(prints: Iterable[tuple[str, str]], which: int) -> int:
    """How many pictures share their print (0 = bytes, 1 = look) with another one."""
    counts = Counter(one[which] for one in prints)
    return sum(number for number in counts.values() if number > 1)


def check_overlap(splits: Mapping[str, Dataset]) -> dict:
    """Ids and texts that occur twice. Texts are compared without web addresses and in lower case."""
    texts, ids = {}, {}
    labels, tweets = defaultdict(set), defaultdict(list)
    for name, split in splits.items():
        ids[name], texts[name] = split["id"][:], []
        for tweet, words, tags in zip(split["id"], split["tokens"], tag_names(split), strict=True):
            kept = [(word.lower(), tag) for word, tag in zip(words, tags, strict=True) if not word.startswith("http")]
            text = " ".join(word for word, _ in kept)
            texts[name].append(text)
            labels[text].add(tuple(tag for _, tag in kept))
            tweets[text].append(f"{name} {tweet}")
    found = {f"repeated ids inside {name}": len(own) - len(set(own)) for name, own in ids.items()}
    found |= {f"repeated texts inside {name}": len(own) - len(set(own)) for name, own in texts.items()}
    names = list(splits)
    for number, later in enumerate(names):
        for earlier in names[:number]:
            known_texts, known_ids = set(texts[earlier]), set(ids[earlier])
            found[f"{later} tweets whose text is in {earlier}"] = sum(text in known_texts for text in texts[later])
            found[f"{later} ids that are in {earlier}"] = sum(one in known_ids for one in ids[later])
    found["texts with different labels"] = sum(len(versions) > 1 for versions in labels.values())
    found["tweets with equal texts"] = [same for same in tweets.values() if len(same) > 1]
    if "train" in splits:
        known = set(_surface_forms(splits["train"]))
        for name in names:
            own = list(_surface_forms(splits[name]))
            if name != "train" and own:
                share = 100 * sum(text in known for text in own) / len(own)
                found[f"entities of {name} whose text is an entity of train (%)"] = round(share, 2)
    return found


def compare_labels(one: Mapping[str, Dataset], other: Mapping[str, Dataset]) -> dict:
    """Differences of two copies of a dataset, tweet by tweet: what has to be changed in `one` to get `other`.

    Returns:
        Per split of both: tweets in one copy only, tweets with other words, tweets with other labels, each changed
        label with its number ("B-MISC -> O"), and the ids.
    """
    report = {}
    for name in one:
        if name not in other:
            continue
        rows, others = _by_id(one[name]), _by_id(other[name])
        both = [key for key in rows if key in others]
        same_words = [key for key in both if rows[key][0] == others[key][0]]
        relabelled = [key for key in same_words if rows[key][1] != others[key][1]]
        changes = Counter(
            f"{old} -> {new}"
            for key in relabelled
            for old, new in zip(rows[key][1], others[key][1], strict=True)
            if old != new
        )
        report[name] = {
            "only in the first": len(rows) - len(both),
            "only in the second": len(others) - len(both),
            "tweets with other words": len(both) - len(same_words),
            "tweets with other labels": len(relabelled),
            "labels changed": changes.total(),
            **dict(changes.most_common()),
            "ids only in the first": [key for key in rows if key not in others],
            "ids only in the second": [key for key in others if key not in rows],
            "ids with other labels": relabelled,
        }
    return report


def _by_id(split: Dataset) -> dict[str, tuple[list[str], list[str]]]:
    return dict(zip(split["id"], zip(split["tokens"], tag_names(split), strict=True), strict=True))


def _surface_forms(split: Dataset) -> Iterator[str]:
    for words, tags in zip(split["tokens"], tag_names(split), strict=True):
        for start, end, _ in entity_spans(tags, strict=True):
            yield " ".join(words[start:end]).lower()


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character) in _INVISIBLE or character in "\ufe0e\ufe0f\ufffd"


def _code_points(text: str) -> str:
    return " ".join(f"U+{ord(character):04X}" for character in text) if text else "no character"


def _difference_hash(picture: PILImage.Image) -> str:
    """64 bits: is each of 8 x 8 cells brighter than its right neighbour? Copies in other sizes have the same."""
    grey = np.asarray(picture.convert("L").resize((9, 8), PILImage.Resampling.BOX), dtype=np.int16)
    return np.packbits(grey[:, :-1] > grey[:, 1:]).tobytes().hex()
