"""Contrast tweets: invented posts in which only the picture tells what a name stands for.

Every name stands for a person, a place, an organisation and something else equally often. A post holds two or three
names of different types, and its picture shows one object for each, so that only the link between a name and its own
object decides. Some pictures have misleading objects. Three posts in 25 have no picture: two of them hold one name, and
the words say its type; one holds no name at all.

With one name a post, the picture shows its object and no other: any model that sees the picture can tell the type.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict

from modeling_umgf.labels import bio_labels, spans_to_tags

from .columns.contract import TWITTER_TYPES, dataset_features
from .contrast.command import run_generator
from .contrast.drawings import draw_objects
from .contrast.names import invented_name, invented_words
from .writing.dataset_folder import check_output_dir, write_dataset

SPLITS = {"train": (2000, 1140), "validation": (300, 57), "test": (500, 95)}
"""Posts and different names (or about as many) of each split."""

# {} is a name; words with a tilde are a noun phrase that is no name and that an object may be linked to
TEMPLATES = {
    1: [
        "Just saw {} , what a day",
        "look at {} in this~ view~",
        "RT @photo_fan : here is {} !",
        "Finally a~ photo~ with {} in it",
        "so {} ... no words needed",
        "Can you spot {} in my~ picture~ ?",
    ],
    2: [
        "Just saw {} right next to {} , what a day",
        "{} looks great beside {} in this~ view~",
        "RT @photo_fan : here is {} together with {} !",
        "Finally a~ photo~ with {} and {} in it",
        "so {} meets {} ... no words needed",
        "Can you spot {} behind {} in my~ picture~ ?",
        "first {} , then {} , that was the~ weekend~",
        "{} again ! and yes , this is {} #snapshot",
    ],
    3: [
        "{} , {} and {} all in one~ shot~",
        "who else loves {} with {} and {} today ?",
        "this~ view~ has {} left of {} and {} somewhere",
        "{} first , {} second , {} last #ranking",
        "My~ camera~ found {} near {} , not far from {}",
        "RT @daily_pics : {} or {} or {} ? you choose",
    ],
}
SPEAKING_CLAUSES = {  # for posts without a picture: a name alone, and the words say its type
    "PER": ["my sister {} says hello", "happy birthday to my sister {}"],
    "LOC": ["greetings from the city {}", "it rains in the city {}"],
    "ORG": ["the company {} is hiring", "we work for the company {}"],
    "MISC": ["they played the song {}", "the song {} is on the radio"],
}
NAMELESS = [
    "nothing but rain today , staying in bed",
    "why is it always monday ?",
    "good morning everyone , have a lovely day !",
    "I could eat pizza all week long #hungry",
    "cannot sleep again , counting sheep",
]
GENERAL_WORDS = {"PER": "person", "LOC": "location", "ORG": "organization", "MISC": "misc"}


def contrast_tweets(seed: int = 0, one_name: bool = False) -> DatasetDict:
    """Make the splits train (2,000 posts), validation (300) and test (500), which share no name.

    Args:
        seed: everything follows from it.
        one_name: one name in a post with a picture, instead of two or three.

    Returns:
        Columns `id`, `tokens`, `ner_tags`, `image`, `noun_phrases`, `objects`.
    """
    rng = np.random.default_rng(seed)
    words = invented_words(rng, count=2 * sum(names for _, names in SPLITS.values()))
    features = dataset_features(bio_labels(TWITTER_TYPES), ("noun_phrases", "objects"))
    splits = DatasetDict()
    for split, (size, name_count) in SPLITS.items():
        shared_out = _mentions(words, size, name_count, rng, one_name)
        rows = [_post(mentions, has_picture, rng) for mentions, has_picture in shared_out]
        rng.shuffle(rows)
        rows = [{"id": f"{split}-{number}", **row} for number, row in enumerate(rows)]
        splits[split] = Dataset.from_list(rows, features=features)
    return splits


def write_contrast_tweets(output_dir: str | Path, seed: int = 0, one_name: bool = False) -> None:
    """Write the contrast tweets as a folder for `datasets.load_dataset`."""
    check_output_dir(output_dir)
    flag = " --one_name" if one_name else ""
    write_dataset(
        contrast_tweets(seed, one_name),
        output_dir,
        title="Contrast tweets of one name" if one_name else "Contrast tweets",
        description=f"{__doc__}\nMade by `python -m dataset_scripts.contrast_tweets --seed {seed}{flag}`.",
    )


def _mentions(
    words: Iterator[str], posts: int, name_count: int, rng: np.random.Generator, one_name: bool
) -> Iterator[tuple[list[tuple[list[str], str]], bool]]:
    """Share names out to the posts as (name, type) pairs, and pictures; each name gets each type equally often.

    Of 25 posts 22 have a picture and hold two or three names (or one), two hold one name, and one holds none.
    """
    none = posts // 25
    speaking = 2 * posts // 25
    pictured = posts - none - speaking
    fewer, more = (1, 1) if one_name else (2, 3)
    sizes = np.repeat([0, 1, fewer, more], [none, speaking, pictured - pictured // 2, pictured // 2])
    repeats = max(1, round(sizes.sum() / (4 * name_count)))
    sizes[posts - sizes.sum() % (4 * repeats) :] -= 1  # so that it comes out even
    names = [invented_name(words, rng) for _ in range(sizes.sum() // (4 * repeats))]
    pools = {}
    for kind in TWITTER_TYPES:
        order = rng.permutation(len(names) * repeats) % len(names)
        pools[kind] = [names[i] for i in order]
    for post in rng.permutation(posts):
        fullest = sorted(pools, key=lambda kind: (-len(pools[kind]), rng.random()))[: sizes[post]]
        mentions = []
        for kind in fullest:
            used = [name for name, _ in mentions]
            free = [i for i, name in enumerate(pools[kind]) if name not in used] or [0]
            mentions.append((pools[kind].pop(free[-1]), kind))
        yield mentions, bool(mentions) and post >= none + speaking


def _post(mentions: list[tuple[list[str], str]], has_picture: bool, rng: np.random.Generator) -> dict:
    """One row: words with the names in random order, and perhaps a picture with the objects in random places."""
    mentions = [mentions[i] for i in rng.permutation(len(mentions))]
    if has_picture:
        template = rng.choice(TEMPLATES[len(mentions)])
    else:
        template = rng.choice(SPEAKING_CLAUSES[mentions[0][1]] if mentions else NAMELESS)
    tokens, spans, other_phrases = _fill(template, mentions)
    phrases = sorted([(start, end) for start, end, _ in spans] + other_phrases)
    row = {
        "tokens": tokens,
        "ner_tags": spans_to_tags(spans, len(tokens)),
        "image": None,
        "noun_phrases": [{"start": start, "end": end} for start, end in phrases],
        "objects": [],
    }
    if has_picture:
        scene = _scene(spans, other_phrases, rng)
        picture, boxes = draw_objects([kind for kind, _ in scene], rng)
        row["image"] = {"bytes": picture, "path": None}
        for (kind, phrase), box in zip(scene, boxes, strict=True):
            found = {"box": box, "score": rng.uniform(0.5, 1.0), "query": GENERAL_WORDS[kind], "phrase": None}
            if phrase is not None:
                start, end = phrase
                found["query"] = " ".join(tokens[start:end])
                found["phrase"] = {"start": start, "end": end}
            row["objects"].append(found)
    return row


def _scene(
    spans: list[tuple[int, int, str]], other_phrases: list[tuple[int, int]], rng: np.random.Generator
) -> list[tuple[str, tuple[int, int] | None]]:
    """Types of the objects of a picture and the phrases they are linked to: those of the names, and misleading ones.

    A name alone has no misleading one beside it, which nothing but the link could tell from its own.
    """
    scene = [(kind, (start, end)) for start, end, kind in spans]
    if len(scene) == 1:
        return scene
    scene += [(rng.choice(TWITTER_TYPES), phrase) for phrase in other_phrases if rng.random() < 0.4]
    unlinked = rng.choice(TWITTER_TYPES)
    if rng.random() < 0.2:
        scene.append((unlinked, None))
    return [scene[i] for i in rng.permutation(len(scene))]


def _fill(template: str, mentions: list) -> tuple[list[str], list[tuple[int, int, str]], list[tuple[int, int]]]:
    """Words, (start, end, type) of the names and (start, end) of the phrase that is no name."""
    tokens = []
    spans = []
    marked = []
    for word in template.split():
        if word == "{}":
            name, kind = mentions[len(spans)]
            spans.append((len(tokens), len(tokens) + len(name), kind))
            tokens += name
        else:
            if word.endswith("~"):
                marked.append(len(tokens))
            tokens.append(word.rstrip("~"))
    return tokens, spans, [(marked[0], marked[-1] + 1)] if marked else []


def main() -> None:
    one_name = "one name in a post with a picture, instead of two or three"
    run_generator(__doc__.splitlines()[0], write_contrast_tweets, one_name=one_name)


if __name__ == "__main__":
    main()
