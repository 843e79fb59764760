"""A dataset of tweets -> the same tweets with their neighbours, the relation index of R-GCN and a report.

    python -m dataset_scripts.build_relations --dataset data/tweets --output_dir data/tweets_relations \
        --text_encoder sentence-transformers/all-MiniLM-L6-v2 --features microsoft/resnet-152

writes `dataset` (for train_umgf.py --dataset_name), `relation_index` (for --processor_overrides) and
`relation_report.json` into the output folder. A run that was stopped goes on where it was.
"""

import argparse
import hashlib
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from modeling_umgf.descriptors import PictureFeatures
from modeling_umgf.pictures import content_hash, open_picture
from modeling_umgf.relations import RelationIndex, looks_of
from modeling_umgf.sentence_encoders import HashingEncoder, SentenceEncoder, TextEncoder

from .features import OPTIONAL_COLUMNS
from .published_formats import lost_tweets, read_relation_file
from .splits import load_splits
from .text_files import BadInput, numbered_lines, run_command
from .writing import check_output_dir, write_dataset

logger = logging.getLogger(__name__)

CHUNK = 256
"""Pictures or captions that are worked on, and saved, at a time."""

AUTHORS_FILES = {"train": "train_2.txt", "validation": "valid_2.txt", "test": "test_2.txt"}


class Pictures:
    """All pictures of the tweets of a dataset: one for each tweet that has a picture, or at least a caption.

    Args:
        splits: the tweets.
        left_out: ids whose picture may not be used, such as blank ones.
    """

    def __init__(self, splits: DatasetDict, left_out: Sequence[str] = ()):
        self.ids, self.splits, self.captions, self.object_labels, self._places = [], [], [], [], []
        self.outcomes = Counter()
        left_out = set(left_out)
        for name, split in splits.items():
            has_image = split.data["image"].is_valid().to_pylist()
            captions = split["caption"][:] if "caption" in split.features else [None] * len(split)
            labels = split["object_labels"][:] if "object_labels" in split.features else [None] * len(split)
            for i, picture in enumerate(split["id"]):
                if not has_image[i] and not captions[i]:
                    self.outcomes["no picture"] += 1
                elif picture in left_out:
                    self.outcomes["left out"] += 1
                else:
                    self.outcomes["used"] += 1
                    self.ids.append(picture)
                    self.splits.append(name)
                    self.captions.append(captions[i])
                    self.object_labels.append(labels[i] or [])
                    self._places.append((split, i) if has_image[i] else None)
        self.hashes: list[str | None] = []
        self.row = {picture: i for i, picture in enumerate(self.ids)}
        if len(self.row) < len(self.ids):
            twice = next(picture for picture, count in Counter(self.ids).items() if count > 1)
            raise BadInput(f"the id {twice} is in the dataset twice; neighbours are named by ids")

    def __len__(self) -> int:
        return len(self.ids)

    def open(self, i: int):
        """Return the picture, RGB and upright; None where only its caption is known."""
        if self._places[i] is None:
            return None
        split, row = self._places[i]
        return open_picture(split[row]["image"])


def build_relations(
    splits: DatasetDict,
    output_dir: str | Path,
    encoder: TextEncoder,
    *,
    candidate_pool: str = "train",
    hubness: str = "center",
    features: PictureFeatures | str = "caption",
    pooled: bool = False,
    k: int = 5,
    left_out: Sequence[str] = (),
    authors_relations: str | Path | None = None,
    title: str = "Tweets with neighbours",
) -> dict:
    """Write the tweets with their neighbours, the relation index and the report.

    Args:
        splits: tweets with the column `caption`, for the inter-modal relation, or `object_labels`, for the intra-modal.
        output_dir: folder for `dataset`, `relation_index` and `relation_report.json`.
        encoder: of texts and captions.
        candidate_pool: "train", another split or "all" (transductive): whose pictures may be neighbours.
        hubness: "center", "csls" or "none", see `RelationIndex`.
        features: what the model sees of a neighbour: an image encoder, "caption" (the caption's vector; it also becomes
            the tweets' own `object_features`) or "none".
        pooled: one vector a picture instead of one for each cell.
        k: neighbours of each relation.
        left_out: ids of pictures that may not be used, such as blank ones.
        authors_relations: folder of the R-GCN authors' files, to take their neighbours instead of looking for them.
        title: first line of the dataset card.

    Returns:
        The report.

    Raises:
        BadInput: The pool is empty, an id comes twice, or a picture to take features of is missing.
    """
    output_dir = Path(output_dir)
    check_output_dir(output_dir / "dataset")
    pictures = Pictures(splits, left_out)
    logger.info("pictures: %s", ", ".join(f"{count} {outcome}" for outcome, count in pictures.outcomes.items()))
    chosen = [i for i, name in enumerate(pictures.splits) if candidate_pool in ("all", name)]
    if not chosen:
        raise BadInput(
            f"the pool {candidate_pool!r} has no picture; take one of the splits {', '.join(splits)}, or all"
        )
    report = {
        "pictures": dict(pictures.outcomes),
        "candidate_pool": candidate_pool,
        "pictures_in_pool": len(chosen),
        "k": k,
    }
    report |= {"text_encoder": encoder.name, "hubness": hubness, "relations": {}}

    source = features if isinstance(features, str) else [_weight(features.model), features.image_processor.size, pooled]
    kept = Checkpoint(output_dir / "unfinished", [encoder.name, encoder.width, source, pictures.ids, pictures.captions])
    vectors = kept.compute("sentence vectors", len(pictures), lambda rows: encode_captions(encoder, pictures, rows))
    hashes = kept.compute("content hashes", len(pictures), lambda rows: hash_pictures(pictures, rows))
    pictures.hashes = [bytes(row.tolist()).hex() if row.any() else None for row in hashes]
    looks = None
    if features == "caption":
        looks = vectors[:, None].half()
    elif features != "none":
        looks = kept.compute("features", len(pictures), lambda rows: see_pictures(features, pooled, pictures, rows))

    index = RelationIndex(
        [pictures.ids[i] for i in chosen],
        captions=[pictures.captions[i] for i in chosen] if any(pictures.captions) else None,
        text_embeddings=vectors[chosen] if any(pictures.captions) else None,
        object_labels=[pictures.object_labels[i] for i in chosen] if any(pictures.object_labels) else None,
        features=None if looks is None else looks[chosen],
        content_hashes=[pictures.hashes[i] for i in chosen] if any(pictures.hashes) else None,
        encoder=encoder,
        hubness=hubness,
        reference_texts=[" ".join(tokens) for tokens in splits["train"]["tokens"]] if hubness == "csls" else None,
    )
    if authors_relations is not None:
        neighbors, lost, unknown = authors_neighbors(authors_relations, splits, index, k)
        report |= {"lost_tweets": lost, "neighbors_not_in_pool": unknown}
    else:
        neighbors = find_neighbors(splits, index, pictures, None if looks is None else looks_of(looks), k)
    splits = DatasetDict(splits)
    for name, columns in neighbors.items():
        for relation, found in columns.items():
            report["relations"].setdefault(relation, {})[name] = describe(found, splits[name]["id"], pictures)
            splits[name] = replace_column(splits[name], relation, found)
        if features == "caption":
            rows = [pictures.row.get(picture) for picture in splits[name]["id"]]
            own = [None if row is None else vectors[row : row + 1].tolist() for row in rows]
            splits[name] = replace_column(splits[name], "object_features", own)
    log_report(report)

    index.save_pretrained(output_dir / "relation_index")
    write_dataset(splits, output_dir / "dataset", title=title, description=_card(report))
    unfinished = output_dir / "relation_report.json.unfinished"
    unfinished.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    os.replace(unfinished, output_dir / "relation_report.json")
    kept.remove()
    return report


# ------------------------------------------------------------------------------------- vectors, features, neighbours


class Checkpoint:
    """Results of long work, saved chunk by chunk, so that a run that was stopped can go on.

    Args:
        folder: where the chunks are kept until `remove`.
        settings: what the results depend on; chunks of a run with other settings are thrown away.
    """

    def __init__(self, folder: Path, settings: object):
        self.folder = folder
        fingerprint = hashlib.sha256(json.dumps(settings, default=str).encode()).hexdigest()
        note = folder / "settings.sha256"
        if folder.exists() and (not note.exists() or note.read_text() != fingerprint):
            logger.info("starting anew: %s is of a run with other settings", folder)
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        note.write_text(fingerprint)

    def compute(self, name: str, rows: int, compute: Callable[[range], torch.Tensor]) -> torch.Tensor:
        """Return the rows [rows, ...] that `compute` makes of chunks of them, or that an earlier run made."""
        chunks = []
        for start in tqdm(range(0, rows, CHUNK), desc=f"{name}, {CHUNK} pictures a step", disable=None):
            file = self.folder / f"{name}-{start:09d}.safetensors"
            if not file.exists():
                unfinished = file.with_suffix(".unfinished")
                save_file({"rows": compute(range(start, min(start + CHUNK, rows))).contiguous()}, unfinished)
                os.replace(unfinished, file)
            chunks.append(load_file(file)["rows"])
        return torch.cat(chunks)

    def remove(self) -> None:
        """Throw the chunks away."""
        shutil.rmtree(self.folder)


def _weight(model: torch.nn.Module) -> float:
    """A number that other weights hardly ever have."""
    return sum(parameter.double().abs().sum().item() for parameter in model.parameters())


def encode_captions(encoder: TextEncoder, pictures: Pictures, rows: range) -> torch.Tensor:
    """Sentence vectors [rows, D] of captions; zeros where there is none."""
    return encoder.encode([pictures.captions[i] or "" for i in rows])


def hash_pictures(pictures: Pictures, rows: range) -> torch.Tensor:
    """Content hashes [rows, 32], bytes; zeros where only a caption is known."""
    opened = (pictures.open(i) for i in rows)
    hashes = [bytes(32) if picture is None else bytes.fromhex(content_hash(picture)) for picture in opened]
    return torch.tensor([list(one) for one in hashes], dtype=torch.uint8)


def see_pictures(encoder: PictureFeatures, pooled: bool, pictures: Pictures, rows: range) -> torch.Tensor:
    """Features [rows, r, F] of pictures, float16; pooled: r = 1."""
    opened = [pictures.open(i) for i in rows]
    if None in opened:
        name = pictures.ids[rows[opened.index(None)]]
        raise BadInput(f"tweet {name} has a caption but no picture to see; take --features caption, or leave it out")
    cells = torch.cat([encoder(opened[i : i + 16]) for i in range(0, len(opened), 16)])
    return (cells.mean(1, keepdim=True) if pooled else cells).half()


def find_neighbors(
    splits: DatasetDict, index: RelationIndex, pictures: Pictures, looks: torch.Tensor | None, k: int
) -> dict[str, dict[str, list[list[dict]]]]:
    """Return the columns `neighbors_inter`, if captions are known, and `neighbors_intra`, if objects are.

    Args:
        looks: [N, F] how all pictures look, which decides between equal scores.
    """
    neighbors = {}
    for name, split in splits.items():
        logger.info("%s: looking for the neighbours of %d tweets", name, len(split))
        rows = [pictures.row.get(picture) for picture in split["id"]]
        hashes = [None if row is None else pictures.hashes[row] for row in rows]
        own = list(zip(split["id"], hashes, strict=True))
        seen = None
        if looks is not None:  # zeros where there is no picture
            seen = torch.cat([looks, torch.zeros_like(looks[:1])])[[-1 if row is None else row for row in rows]][
                :, None
            ]
        neighbors[name] = {}
        if index.text_embeddings is not None:
            texts = [" ".join(tokens) for tokens in split["tokens"]]
            neighbors[name]["neighbors_inter"] = index.neighbors_for_text(texts, k, own, seen)
        if index.object_labels is not None:
            shown = [[] if row is None else pictures.object_labels[row] for row in rows]
            neighbors[name]["neighbors_intra"] = index.neighbors_for_picture(shown, k, own, seen)
    return neighbors


def authors_neighbors(
    folder: str | Path, splits: DatasetDict, index: RelationIndex, k: int
) -> tuple[dict[str, dict[str, list[list[dict]]]], dict[str, list[str]], int]:
    """Read neighbours from the R-GCN authors' files instead of finding them.

    Returns:
        The columns of each split; the ids of the tweets that the files lost, which get no neighbours; how many
        neighbours were left out because their picture is not in the pool.
    """
    neighbors, lost, unknown = {}, {}, 0
    for name, split in splits.items():
        if name not in AUTHORS_FILES:
            raise BadInput(f"{folder}: the authors have no relations for the split {name}")
        rows = read_relation_file(Path(folder) / AUTHORS_FILES[name])
        lost[name] = lost_tweets(rows, [{"id": picture} for picture in split["id"]])
        by_id = {row["id"]: row for row in rows}
        neighbors[name] = {}
        for relation in ("neighbors_inter", "neighbors_intra"):
            best = [by_id[picture][relation][:k] if picture in by_id else [] for picture in split["id"]]
            neighbors[name][relation] = [[one for one in row if one["id"] in index] for row in best]
            unknown += sum(one["id"] not in index for row in best for one in row)
    return neighbors, lost, unknown


# ---------------------------------------------------------------------------------------------------------- report


def hubness(neighbors: Sequence[Sequence[dict]]) -> dict[str, float | int]:
    """How unevenly pictures are found: share of slots taken by the ten most frequent, and how many ever occur."""
    counts = Counter(one["id"] for row in neighbors for one in row)
    slots = counts.total()
    top = sum(count for _, count in counts.most_common(10))
    return {"slots": slots, "top10_share": round(top / max(slots, 1), 4), "distinct_pictures": len(counts)}


def describe(neighbors: Sequence[Sequence[dict]], ids: Sequence[str], pictures: Pictures) -> dict:
    """The report on one relation of one split."""

    def copies(one: str, other: str) -> bool:
        known = [pictures.hashes[pictures.row[name]] for name in (one, other) if name in pictures.row]
        return len(known) == 2 and known[0] is not None and known[0] == known[1]

    scores = [one["score"] for row in neighbors for one in row]
    pairs = [(own, one["id"]) for own, row in zip(ids, neighbors, strict=True) for one in row]
    return {
        "tweets": len(neighbors),
        "empty_rows": sum(not row for row in neighbors),
        "self_hits": sum(own == other for own, other in pairs),
        "copy_hits": sum(own != other and copies(own, other) for own, other in pairs),
        **hubness(neighbors),
        "mean_score": round(float(np.mean(scores)), 4) if scores else None,
        "score_histogram": np.histogram(scores, bins=10, range=(0, 1))[0].tolist(),
    }


def log_report(report: dict) -> None:
    """Say in a few lines what the report holds."""
    for relation, splits in report["relations"].items():
        for name, found in splits.items():
            logger.info(
                "%s, %s: %d of %d tweets without neighbours; ten pictures take %.1f %% of %d slots, %d ever occur; "
                "self hits %d; scores in tenths %s",
                relation,
                name,
                found["empty_rows"],
                found["tweets"],
                100 * found["top10_share"],
                found["slots"],
                found["distinct_pictures"],
                found["self_hits"],
                found["score_histogram"],
            )
    for name, ids in report.get("lost_tweets", {}).items():
        if ids:
            logger.info("%s: the authors' file lost %d tweets: %s", name, len(ids), ", ".join(ids))


def replace_column(split: Dataset, name: str, values: list) -> Dataset:
    """The dataset with the values as the column `name`."""
    columns = [column for column in split.features if column != name]
    return split.select_columns(columns).add_column(name, values, feature=OPTIONAL_COLUMNS[name])


def _card(report: dict) -> str:
    return "Neighbours for R-GCN. How they were found:\n\n```json\n" + json.dumps(report, indent=1) + "\n```"


def _read_ids(path: str) -> list[str]:
    """Ids in a file, one a line; only the last column counts, and lines that begin with # do not."""
    return [line.split("\t")[-1] for _, line in numbered_lines(path) if line and not line.startswith("#")]


def main() -> None:
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    features = arguments.features
    if features not in ("caption", "none"):
        features = PictureFeatures.from_pretrained(features)
        features.image_processor.size = {"height": arguments.image_size, "width": arguments.image_size}
    encoder = HashingEncoder() if arguments.text_encoder == "hashing" else SentenceEncoder(arguments.text_encoder)
    build_relations(
        load_splits(arguments.dataset, captions_file=arguments.captions),
        arguments.output_dir,
        encoder,
        candidate_pool=arguments.candidate_pool,
        hubness=arguments.hubness,
        features=features,
        pooled=arguments.pooled,
        k=arguments.k,
        left_out=_read_ids(arguments.exclude_ids) if arguments.exclude_ids else (),
        authors_relations=arguments.authors_relations,
        title=arguments.title,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", required=True, help="folder or Hub id of the tweets (see build_dataset)")
    parser.add_argument("--output_dir", required=True, help="folder to write")
    parser.add_argument("--captions", metavar="FILE", help="lines '<id>.jpg :caption'; default: the column caption")
    parser.add_argument(
        "--candidate_pool",
        default="train",
        help="where neighbours come from: train, another split, or all (transductive)",
    )
    parser.add_argument(
        "--exclude_ids", metavar="FILE", help="ids, one a line, of pictures to leave out, e.g. blank ones"
    )
    parser.add_argument(
        "--text_encoder",
        default="sentence-transformers/all-MiniLM-L6-v2",
        help="encoder of texts and captions: id or folder, or hashing (no weights)",
    )
    parser.add_argument(
        "--hubness", choices=("center", "csls", "none"), default="center", help="correction, default center"
    )
    parser.add_argument(
        "--features",
        default="caption",
        help="what the model sees of a neighbour: id or folder of the model's image encoder; caption (its vector, no "
        "pixels; also written as the tweets' own object_features); or none",
    )
    parser.add_argument("--image_size", type=int, default=224, help="pixels square, as in training")
    parser.add_argument("--pooled", action="store_true", help="one vector a picture instead of one for each cell")
    parser.add_argument("--k", type=int, default=5, help="neighbours of each relation")
    parser.add_argument(
        "--authors_relations", metavar="FOLDER", help="take the neighbours from the R-GCN authors' files instead"
    )
    parser.add_argument("--title", default="Tweets with neighbours", help="first line of the dataset card")
    return parser


if __name__ == "__main__":
    run_command(main)
