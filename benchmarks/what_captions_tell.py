"""What do captions tell about the type of a name that its words don't, and what does knowledge tell?

    python -m benchmarks.run_recipes recipes/offline/twitter2017/bert_crf.yaml --seeds 1 --keep_models
    python -m benchmarks.what_captions_tell runs/offline/twitter2017/bert_crf/seed_1

The words of each name are given, and its type is asked. A logistic regression reads the probabilities that a text-only
tagger gives the types of these words, and beside them the vector of the caption, or of what the knowledge says that
the name is: whatever improves with a vector is said by it and not by the words, as far as one can tell from so many
names. It is cross-validated over the posts of the validation split; test posts are not read.
"""

import argparse
import shlex
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, load_dataset
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import GroupKFold
from tqdm import tqdm
from transformers import AutoModelForTokenClassification, AutoProcessor

import modeling_umgf  # noqa: F401
from modeling_umgf.decoding import decode
from modeling_umgf.labels import Span, entity_spans

from .record import write_result

DATASET = "data/offline/twitter2017"
TYPES = ("PER", "LOC", "ORG", "MISC")
FOLDS = 10
INNER_FOLDS = 5
STRENGTHS = np.logspace(-4, 0, 5)
"""Of the regularisation of the vectors, inverted; chosen in each fold from its own training posts."""
WEIGHT_OF_WORDS = 10.0
"""Of the tagger's probabilities among the inputs, so that they are hardly regularised."""
RESAMPLES = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a text-only tagger of these posts")
    parser.add_argument("--dataset", default=DATASET, help=f"the offline preset's (default {DATASET})")
    arguments = parser.parse_args()
    with_knowledge = f"{arguments.dataset}_knowledge"
    begin = time.time()
    torch.manual_seed(0)
    try:
        posts, listed = (load_dataset(name, split="validation") for name in (arguments.dataset, with_knowledge))
    except OSError as error:
        sys.exit(f"error: {error}. docs/recipes.md says how the offline preset's data are made.")
    names = names_of(posts)
    captions = vectors_of_captions(posts)
    kinds = vectors_of_kinds(listed, names)
    words = WEIGHT_OF_WORDS * probabilities_of_types(arguments.model, posts, names)
    post_of_name = np.array([post for post, _ in names])
    of_another = np.random.default_rng(0).permutation(len(posts))[post_of_name]
    inputs = {
        "nothing": np.zeros((len(names), 1)),
        "the caption": captions[post_of_name],
        "its words": words,
        "its words, and the caption of another post": np.hstack([words, captions[of_another]]),
        "its words and the caption": np.hstack([words, captions[post_of_name]]),
        "its words, and what the knowledge says it is": np.hstack([words, kinds]),
    }
    types = np.array([TYPES.index(span[2]) for _, span in names])
    predicted = {
        what: cross_validated(vectors, types, post_of_name) for what, vectors in tqdm(inputs.items(), desc="inputs")
    }
    rows = [
        {"read": what} | scores(own, predicted["its words"], types, post_of_name) for what, own in predicted.items()
    ]
    configuration = {
        "command": f"python -m benchmarks.what_captions_tell {shlex.join(sys.argv[1:])}",
        "dataset": f"{arguments.dataset}, validation split",
        "names": len(names),
        "names_with_a_caption": int(captions[post_of_name].any(1).sum()),
        "names_that_the_knowledge_lists": int(kinds.any(1).sum()),
        "folds": FOLDS,
        "resamples": RESAMPLES,
    }
    print(write_result("what_captions_tell", configuration, rows, time.time() - begin, packages=("scikit-learn",)))
    for row in rows:
        print(row)


def names_of(posts: Dataset) -> list[tuple[int, Span]]:
    """The number of its post, and the span, of each gold name."""
    labels = posts.features["ner_tags"].feature.names
    tags = [[labels[tag] for tag in own] for own in posts["ner_tags"]]
    return [(post, span) for post, own in enumerate(tags) for span in entity_spans(own)]


def vectors_of_captions(posts: Dataset) -> np.ndarray:
    """The vector [posts, D] of each caption, which is the first object of its post; 0 where there is none."""
    features = posts["object_features"][:]
    width = len(next(own for own in features if own)[0])
    return np.array([own[0] if own else [0.0] * width for own in features])


def vectors_of_kinds(listed: Dataset, names: list[tuple[int, Span]]) -> np.ndarray:
    """The mean vector [names, D] of what the knowledge says that the words of a name are; 0 where it says nothing."""
    objects, features = listed["objects"][:], listed["object_features"][:]
    found = []
    for post, (start, end, _) in names:
        own = [
            vector
            for said, vector in zip(objects[post], features[post], strict=True)
            if said["phrase"] and said["phrase"]["start"] < end and start < said["phrase"]["end"]
        ]
        found.append(np.mean(own, axis=0) if own else None)
    width = next(len(vector) for vector in found if vector is not None)
    return np.array([np.zeros(width) if vector is None else vector for vector in found])


def probabilities_of_types(folder: Path, posts: Dataset, names: list[tuple[int, Span]]) -> np.ndarray:
    """Log probabilities [names, types] under a tagger that the words of a name are one of each type, adding up to 1."""
    model = AutoModelForTokenClassification.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    found = []
    spans: dict[int, list[Span]] = {}
    for post, span in names:
        spans.setdefault(post, []).append(span)
    for post, own in tqdm(spans.items(), desc="posts"):
        with torch.no_grad():
            decoded = decode(model, processor(words=posts[post]["tokens"]))
        for start, end, _ in own:
            tags = [
                [model.config.label2id[f"{'B' if i == 0 else 'I'}-{kind}"] for i in range(end - start)]
                for kind in TYPES
            ]
            many = len(TYPES)
            arguments = decoded.emissions, decoded.mask, [0] * many, [start] * many, [end] * many, tags
            found.append(model.label_decoder.span_probability(*arguments))
    probabilities = torch.stack(found).clamp(min=1e-9)
    return (probabilities / probabilities.sum(1, keepdim=True)).log().numpy()


def cross_validated(vectors: np.ndarray, types: np.ndarray, post_of_name: np.ndarray) -> np.ndarray:
    """Probabilities [names, types], each by a regression that has not seen the post of the name."""
    found = np.zeros((len(types), len(TYPES)))
    for train, test in GroupKFold(FOLDS).split(vectors, types, post_of_name):
        inner = list(GroupKFold(INNER_FOLDS).split(vectors[train], types[train], post_of_name[train]))
        regression = LogisticRegressionCV(Cs=STRENGTHS, cv=inner, scoring="neg_log_loss", max_iter=2000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of parameters that are not given
            regression.fit(vectors[train], types[train])
        found[test] = regression.predict_proba(vectors[test])
    return found


def scores(own: np.ndarray, by_words: np.ndarray, types: np.ndarray, post_of_name: np.ndarray) -> dict[str, Any]:
    """How often the type is right, how many bits it still holds, and how many less than after the words alone.

    The interval is over resampled posts.
    """
    names = np.arange(len(types))
    bits = -np.log2(own[names, types])
    saved = -np.log2(by_words[names, types]) - bits
    posts = np.unique(post_of_name, return_inverse=True)[1]
    sums, counts = np.bincount(posts, weights=saved), np.bincount(posts)
    drawn = np.random.default_rng(0).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=RESAMPLES)
    low, high = np.quantile((drawn @ sums) / (drawn @ counts), [0.025, 0.975])
    found = {"bits left": bits.mean(), "bits saved": saved.mean(), "low": low, "high": high}
    right = round(100 * float((own.argmax(1) == types).mean()), 1)
    return {"right types": right} | {what: round(float(value), 3) + 0.0 for what, value in found.items()}  # no -0.0


if __name__ == "__main__":
    main()
