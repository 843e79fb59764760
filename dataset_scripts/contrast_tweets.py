"""Contrast tweets: invented posts in which only the picture tells what a name stands for.

Every name stands for a person, a place, an organisation and something else equally often. A post holds two or three
names of different types, and its picture shows one object for each, so that only the link between a name and its own
object decides. Some pictures have misleading objects. Three posts in 25 have no picture: two of them hold one name, and
the words say its type; one holds no name at all.
"""

import argparse
import io
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict
from PIL import Image, ImageDraw

from modeling_umgf.labels import bio_labels, spans_to_tags

from .features import TWITTER_TYPES, dataset_features
from .text_files import run_command
from .writing import check_output_dir, write_dataset

SPLITS = {"train": (2000, 1140), "validation": (300, 57), "test": (500, 95)}
"""Tweets and different names (or about as many) of each split."""

WIDTH, HEIGHT = 128, 96
COLUMNS, ROWS = 3, 2  # each object has a cell of the picture for itself

# {} is a name; words with a tilde are a noun phrase that is no name and that an object may be linked to
TEMPLATES = {
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
SPEAKING_CLAUSES = {  # for tweets without a picture: a name alone, and the words say its type
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


def contrast_tweets(seed: int = 0) -> DatasetDict:
    """Make the splits train (2,000 tweets), validation (300) and test (500), which share no name.

    Args:
        seed: Everything follows from it.

    Returns:
        Columns `id`, `tokens`, `ner_tags`, `image`, `noun_phrases`, `objects`.
    """
    rng = np.random.default_rng(seed)
    words = invented_words(rng, count=2 * sum(names for _, names in SPLITS.values()))
    features = dataset_features(bio_labels(TWITTER_TYPES), ("noun_phrases", "objects"))
    splits = DatasetDict()
    for split, (size, name_count) in SPLITS.items():
        rows = [_tweet(mentions, rng) for mentions in _mentions(words, size, name_count, rng)]
        rng.shuffle(rows)
        rows = [{"id": f"{split}-{number}", **row} for number, row in enumerate(rows)]
        splits[split] = Dataset.from_list(rows, features=features)
    return splits


def write_contrast_tweets(output_dir: str | Path, seed: int = 0) -> None:
    """Write the contrast tweets as a folder for `datasets.load_dataset`."""
    check_output_dir(output_dir)
    write_dataset(
        contrast_tweets(seed),
        output_dir,
        title="Contrast tweets",
        description=f"{__doc__}\nMade by `python -m dataset_scripts.contrast_tweets --seed {seed}`.",
    )


def invented_words(rng: np.random.Generator, count: int) -> Iterator[str]:
    """Different capitalised words of two or three random syllables."""
    seen = set()
    while len(seen) < count:
        syllables = ["".join(rng.choice(list(part)) for part in ("bdfgklmnprstvz", "aeiou", "lnrs")) for _ in range(3)]
        word = "".join(syllable[: rng.integers(2, 4)] for syllable in syllables[: rng.integers(2, 4)]).capitalize()
        if word not in seen:
            seen.add(word)
            yield word


def _mentions(
    words: Iterator[str], tweets: int, name_count: int, rng: np.random.Generator
) -> Iterator[list[tuple[list[str], str]]]:
    """Share names out to the tweets as (name, type) pairs; each name gets each type equally often.

    Of 25 tweets 22 hold two or three names, two hold one, and one holds none.
    """
    none, one = tweets // 25, 2 * tweets // 25
    several = tweets - none - one
    sizes = np.repeat([0, 1, 2, 3], [none, one, several - several // 2, several // 2])
    repeats = max(1, round(sizes.sum() / (4 * name_count)))
    sizes[tweets - sizes.sum() % (4 * repeats) :] = 2  # so that it comes out even
    names = [[next(words)] + [next(words)] * bool(rng.random() < 0.25) for _ in range(sizes.sum() // (4 * repeats))]
    pools = {kind: [names[i] for i in rng.permutation(len(names) * repeats) % len(names)] for kind in TWITTER_TYPES}
    for size in rng.permutation(sizes):
        fullest = sorted(pools, key=lambda kind: (-len(pools[kind]), rng.random()))[:size]
        mentions = []
        for kind in fullest:
            used = [name for name, _ in mentions]
            free = [i for i, name in enumerate(pools[kind]) if name not in used] or [0]
            mentions.append((pools[kind].pop(free[-1]), kind))
        yield mentions


def _tweet(mentions: list[tuple[list[str], str]], rng: np.random.Generator) -> dict:
    """One row: words with the names in random order, and a picture with the objects in random places."""
    mentions = [mentions[i] for i in rng.permutation(len(mentions))]
    has_picture = len(mentions) > 1
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
        scene = [(kind, (start, end)) for start, end, kind in spans]
        scene += [(rng.choice(TWITTER_TYPES), phrase) for phrase in other_phrases if rng.random() < 0.4]
        scene += [(rng.choice(TWITTER_TYPES), None)] * bool(rng.random() < 0.2)
        scene = [scene[i] for i in rng.permutation(len(scene))]
        picture, boxes = draw_objects([kind for kind, _ in scene], rng)
        row["image"] = {"bytes": picture, "path": None}
        row["objects"] = [
            {
                "box": box,
                "score": rng.uniform(0.5, 1.0),
                "query": GENERAL_WORDS[kind] if phrase is None else " ".join(tokens[slice(*phrase)]),
                "phrase": None if phrase is None else {"start": phrase[0], "end": phrase[1]},
            }
            for (kind, phrase), box in zip(scene, boxes, strict=True)
        ]
    return row


def _fill(template: str, mentions: list) -> tuple[list[str], list[tuple[int, int, str]], list[tuple[int, int]]]:
    """Words, (start, end, type) of the names and (start, end) of the phrase that is no name."""
    tokens, spans, marked = [], [], []
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


def draw_objects(kinds: list[str], rng: np.random.Generator) -> tuple[bytes, list[list[float]]]:
    """A JPEG file with one object per kind, each in a cell of its own, and the boxes around them."""
    background = rng.integers(0, 256, 3)
    slope = np.linspace(-1, 1, WIDTH)[None, :, None] * rng.uniform(-40, 40, 3)
    noise = rng.normal(0, rng.uniform(2, 15), (HEIGHT, WIDTH, 3))
    picture = Image.fromarray((background + slope + noise).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    boxes = []
    for kind, cell in zip(kinds, rng.permutation(COLUMNS * ROWS), strict=False):
        width, height = rng.uniform(30, 41), rng.uniform(34, 46)
        x = cell % COLUMNS * WIDTH / COLUMNS + rng.uniform(0, WIDTH / COLUMNS - width)
        y = cell // COLUMNS * HEIGHT / ROWS + rng.uniform(0, HEIGHT / ROWS - height)
        main = _contrasting_colour(background, rng)
        _SHAPES[kind](_Pen(draw, x, y, width, height), main, _contrasting_colour(main, rng))
        boxes.append([round(float(edge + rng.uniform(-1, 1)), 1) for edge in (x, y, x + width, y + height)])
    boxes = [[max(x0, 0), max(y0, 0), min(x1, WIDTH), min(y1, HEIGHT)] for x0, y0, x1, y1 in boxes]
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue(), boxes


def _contrasting_colour(other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    while True:
        colour = rng.integers(0, 256, 3)
        if abs(colour - other).sum() > 220:
            return colour


class _Pen:
    """Draws in coordinates from 0 to 1 inside one box of a picture."""

    def __init__(self, draw: ImageDraw.ImageDraw, x: float, y: float, width: float, height: float):
        self.draw, self.x, self.y, self.width, self.height = draw, x, y, width, height

    def points(self, *xy: float) -> list[tuple[float, float]]:
        return [(self.x + u * self.width, self.y + v * self.height) for u, v in zip(xy[::2], xy[1::2], strict=True)]

    def polygon(self, colour: np.ndarray, *xy: float) -> None:
        self.draw.polygon(self.points(*xy), fill=tuple(map(int, colour)))

    def ellipse(self, colour: np.ndarray, *xy: float) -> None:
        self.draw.ellipse(self.points(*xy), fill=tuple(map(int, colour)))


def _person(pen: _Pen, main: np.ndarray, second: np.ndarray) -> None:
    pen.ellipse(second, 0.33, 0.0, 0.67, 0.32)  # head
    pen.polygon(main, 0.3, 0.34, 0.7, 0.34, 0.68, 0.7, 0.32, 0.7)  # body
    pen.polygon(main, 0.3, 0.34, 0.0, 0.6, 0.1, 0.7, 0.32, 0.55)  # arms
    pen.polygon(main, 0.7, 0.34, 1.0, 0.6, 0.9, 0.7, 0.68, 0.55)
    pen.polygon(second, 0.32, 0.7, 0.48, 0.7, 0.42, 1.0, 0.24, 1.0)  # legs
    pen.polygon(second, 0.52, 0.7, 0.68, 0.7, 0.76, 1.0, 0.58, 1.0)


def _place(pen: _Pen, main: np.ndarray, second: np.ndarray) -> None:
    pen.polygon(main, 0.0, 1.0, 0.38, 0.25, 0.6, 0.65, 0.72, 0.5, 1.0, 1.0)  # two mountains
    pen.ellipse(second, 0.66, 0.02, 0.94, 0.28)  # sun


def _organisation(pen: _Pen, main: np.ndarray, second: np.ndarray) -> None:
    pen.ellipse(main, 0.0, 0.0, 1.0, 1.0)  # a round logo: a diamond in a disc
    pen.polygon(second, 0.5, 0.12, 0.88, 0.5, 0.5, 0.88, 0.12, 0.5)


def _thing(pen: _Pen, main: np.ndarray, second: np.ndarray) -> None:
    pen.ellipse(second, 0.0, 0.05, 0.4, 0.45)  # a cup: two handles, bowl, stem, foot
    pen.ellipse(second, 0.6, 0.05, 1.0, 0.45)
    pen.polygon(main, 0.15, 0.0, 0.85, 0.0, 0.7, 0.5, 0.56, 0.6, 0.56, 0.8, 0.44, 0.8, 0.44, 0.6, 0.3, 0.5)
    pen.polygon(main, 0.2, 0.8, 0.8, 0.8, 0.8, 1.0, 0.2, 1.0)


_SHAPES = dict(zip(TWITTER_TYPES, (_person, _place, _organisation, _thing), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output_dir", required=True, help="folder to write; a dataset that is already there is replaced"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    write_contrast_tweets(arguments.output_dir, arguments.seed)


if __name__ == "__main__":
    run_command(main)
