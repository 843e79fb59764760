"""Relation contrast tweets: invented posts in which only pictures of other posts tell what a name stands for.

Every name stands for a person, a place, an organisation and something else equally often, and the post's own picture is
missing or noise. Half of the posts have a topic of two words: a gallery of other posts holds four pictures whose
captions name this topic, and they show the type (inter-modal relation). The other half have a picture of noise in which
objects with invented labels were found: four pictures of the gallery have exactly these labels, and they show the type
(intra-modal relation). The test posts share no topic and no label with the training posts, so that neither can be
learnt by heart.

The image encoder is a small ResNet that is first trained, on drawings of its own, to tell the four shapes, and then
frozen, as one trained on ImageNet would be.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from PIL import Image
from transformers import ResNetConfig, ResNetForImageClassification, ResNetModel

from modeling_umgf import MultimodalNerImageProcessor
from modeling_umgf.descriptors import PictureFeatures
from modeling_umgf.labels import bio_labels, spans_to_tags
from modeling_umgf.sentence_encoders import HashingEncoder

from .build_relations import build_relations
from .columns.contract import TWITTER_TYPES, dataset_features
from .contrast.command import run_generator
from .contrast.drawings import draw_objects
from .contrast.names import invented_name, invented_words

SPLITS = {"train": 1600, "validation": 200, "test": 400}
"""Posts of each split; half of them are decided by each relation. Four posts share a name, two a topic."""

PICTURES_A_TOPIC = 4
WORDS_A_TOPIC = 2
LABELS_A_SET = 3
IMAGE_SIZE = 64
DRAWINGS = 1600  # to train the image encoder on

TEMPLATES = [
    "so {} is all over my feed today",
    "RT @daily_news : everybody talks about {} again",
    "can somebody please explain {} to me ?",
    "thinking of {} this morning",
    "{} made my week , thank you",
    "not sure what to say about {} yet",
]
CAPTIONS = ["a photo of {}", "scenes from {}", "{} as seen last night", "several shots of {}"]


def relation_contrast_tweets(seed: int = 0) -> DatasetDict:
    """Make the splits train (1,600 posts), validation (200), test (400) and gallery, which share no topic.

    Args:
        seed: everything follows from it.

    Returns:
        Columns `id`, `tokens`, `ner_tags`, `image`, `caption`, `object_labels`. The gallery has no names.
    """
    rng = np.random.default_rng(seed)
    words = invented_words(rng, 3 * sum(SPLITS.values()))  # 2 a name and 3 a topic at most
    rows = {}
    gallery = []
    for split, size in SPLITS.items():
        posts = []
        for pair in range(size // 8):
            names = [invented_name(words, rng) for _ in range(2)]
            for i, kind in enumerate(TWITTER_TYPES):
                topic = labels = None
                if (pair + i) % 2 == 0:
                    topic = _lower_words(words, WORDS_A_TOPIC)
                else:
                    labels = _lower_words(words, LABELS_A_SET)
                gallery += [_gallery_post(kind, topic, labels, rng) for _ in range(PICTURES_A_TOPIC)]
                posts += [_post(name, kind, topic, labels, rng) for name in names]
        rows[split] = [posts[i] for i in rng.permutation(size)]
    rows["gallery"] = [gallery[i] for i in rng.permutation(len(gallery))]
    features = dataset_features(bio_labels(TWITTER_TYPES), ("caption", "object_labels"))
    splits = DatasetDict()
    for split, posts in rows.items():
        posts = [{"id": f"{split}-{number}", **post} for number, post in enumerate(posts)]
        splits[split] = Dataset.from_list(posts, features=features)
    return splits


def _lower_words(words: Iterator[str], count: int) -> list[str]:
    return [next(words).lower() for _ in range(count)]


def _gallery_post(kind: str, topic: list[str] | None, labels: list[str] | None, rng: np.random.Generator) -> dict:
    """A post with a picture that shows the type: found by its caption or by its labels."""
    caption = None if topic is None else str(rng.choice(CAPTIONS)).format(" ".join(topic))
    tokens = (caption or "no words").split()
    picture, _ = draw_objects([kind] * int(rng.integers(1, 4)), rng)
    return {
        "tokens": tokens,
        "ner_tags": ["O"] * len(tokens),
        "image": {"bytes": picture, "path": None},
        "caption": caption,
        "object_labels": labels,
    }


def _post(
    name: list[str], kind: str, topic: list[str] | None, labels: list[str] | None, rng: np.random.Generator
) -> dict:
    """A post with one name; a topic and no picture, or labels and a picture of noise."""
    before, after = str(rng.choice(TEMPLATES)).split("{}")
    start = len(before.split())
    hashtags = [f"#{word}" for word in topic or []]
    tokens = [*before.split(), *name, *after.split(), *hashtags]
    noise = None if labels is None else {"bytes": _noise(rng), "path": None}
    return {
        "tokens": tokens,
        "ner_tags": spans_to_tags([(start, start + len(name), kind)], len(tokens)),
        "image": noise,
        "caption": None,
        "object_labels": labels,
    }


def _noise(rng: np.random.Generator) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def train_image_encoder(seed: int, drawings: int, epochs: int = 6) -> ResNetModel:
    """Train a small ResNet to tell the four shapes on drawings of its own; returns it without its classifier."""
    rng = np.random.default_rng([seed, 1])
    kinds = torch.from_numpy(rng.integers(0, 4, drawings))
    files = [draw_objects([TWITTER_TYPES[kind]] * int(rng.integers(1, 4)), rng)[0] for kind in kinds]
    pictures = [Image.open(io.BytesIO(file)) for file in files]
    pixels = torch.tensor(np.stack(image_processor()(pictures)["pixel_values"]))
    config = ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 64], depths=[1, 1, 1], layer_type="basic", num_labels=4
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ResNetForImageClassification(config).train()
        batches = [batch for _ in range(epochs) for batch in torch.randperm(drawings).split(50)]
        optimizer = torch.optim.AdamW(model.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=len(batches))
        for batch in batches:
            model(pixels[batch], labels=kinds[batch]).loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return model.resnet.eval()


def image_processor() -> MultimodalNerImageProcessor:
    """The image processor of the small ResNet."""
    return MultimodalNerImageProcessor(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})


def write_relation_contrast_tweets(output_dir: str | Path, seed: int = 0) -> dict:
    """Write `dataset`, `relation_index`, `relation_report.json` and `vision_model`; returns the report."""
    output_dir = Path(output_dir)
    encoder = PictureFeatures(train_image_encoder(seed, DRAWINGS), image_processor())
    report = build_relations(
        relation_contrast_tweets(seed),
        output_dir,
        HashingEncoder(),
        candidate_pool="gallery",
        features=encoder,
        title="Relation contrast tweets",
    )
    encoder.model.save_pretrained(output_dir / "vision_model")
    encoder.image_processor.save_pretrained(output_dir / "vision_model")
    return report


def main() -> None:
    run_generator(__doc__.splitlines()[0], write_relation_contrast_tweets)


if __name__ == "__main__":
    main()
