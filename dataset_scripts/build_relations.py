"""A dataset of posts -> the same posts with their neighbours, the relation index of R-GCN and a report.

    python -m dataset_scripts.build_relations --dataset data/posts --output_dir data/posts_relations \
        --text_encoder sentence-transformers/all-MiniLM-L6-v2 --features microsoft/resnet-152

writes `dataset` (for train_umgf.py --dataset_name), `relation_index` (for --processor_overrides) and
`relation_report.json` into the output folder. A run that was stopped goes on where it was.
"""

import argparse
import json
import logging
from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from datasets import Dataset, DatasetDict

from modeling_umgf.descriptors import PictureFeatures
from modeling_umgf.files import remove, write_whole
from modeling_umgf.relation_index import RelationIndex
from modeling_umgf.relation_pictures import looks_of
from modeling_umgf.sentence_encoders import HashingEncoder, SentenceEncoder, TextEncoder

from .columns.contract import COLUMNS
from .reading.bad_input import BadInput, run_command
from .reading.splits import load_splits
from .reading.text_files import read_id_list
from .relations.authors_files import authors_neighbors
from .relations.post_pictures import PostPictures, encode_captions, hash_and_look, see_pictures
from .relations.report import card_text, describe, log_report
from .writing.dataset_folder import check_output_dir, write_dataset
from .writing.only_writer import only_writer

logger = logging.getLogger(__name__)


def build_relations(
    splits: DatasetDict,
    output_dir: str | Path,
    encoder: TextEncoder | None,
    *,
    candidate_pool: str = "train",
    hubness: str = "center",
    features: PictureFeatures | str = "caption",
    pooled: bool = False,
    k: int = 5,
    left_out: Collection[str] = (),
    authors_relations: str | Path | None = None,
    title: str = "Posts with neighbours",
) -> dict:
    """Write the posts with their neighbours, the relation index and the report.

    Args:
        splits: posts with the column `caption`, for the inter-modal relation, or `object_labels`, for the intra-modal.
            Where no object is named, but `features` is an image encoder, pictures that look alike are the intra-modal
            neighbours.
        output_dir: folder for `dataset`, `relation_index` and `relation_report.json`.
        encoder: of texts and captions; None where no post has a caption.
        candidate_pool: "train", another split or "all" (transductive): whose pictures may be neighbours.
        hubness: "center", "csls" or "none", see `RelationIndex`.
        features: what the model sees of a neighbour: an image encoder, "caption" (the caption's vector; it also becomes
            the posts' own `object_features`) or "none".
        pooled: one vector a picture instead of one for each cell.
        k: neighbours of each relation.
        left_out: ids of pictures that may not be used, such as blank ones.
        authors_relations: folder of the R-GCN authors' files, to take their neighbours instead of looking for them.
        title: first line of the dataset card.

    Returns:
        The report.

    Raises:
        BadInput: The pool is empty, an id comes twice, a picture to take features of is missing, or there is nothing to
            find neighbours by.
    """
    output_dir = Path(output_dir)
    check_output_dir(output_dir / "dataset")
    pictures = PostPictures(splits, left_out)
    logger.info("pictures: %s", ", ".join(f"{count} {outcome}" for outcome, count in pictures.outcomes.items()))
    pool = [i for i, name in enumerate(pictures.splits) if candidate_pool in ("all", name)]
    if not pool:
        raise BadInput(
            f"the pool {candidate_pool!r} has no picture; take one of the splits {', '.join(splits)}, or all"
        )

    has_captions = any(pictures.captions)
    has_objects = any(pictures.object_labels)
    sees = features not in ("caption", "none")
    by_looks = sees and not has_objects and authors_relations is None
    if not has_captions and features == "caption":
        raise BadInput(
            "no post has a caption: give an image encoder as --features, or make captions with "
            "python -m dataset_scripts.add_descriptors --columns caption"
        )
    if not has_captions and not has_objects and not sees:
        raise BadInput("there are no captions, no object labels and no image encoder to find neighbours by")

    unfinished = output_dir / "unfinished"
    vectors = encode_captions(pictures, encoder, unfinished) if has_captions else None
    hashes, looks = hash_and_look(pictures, unfinished)
    seen = None
    if features == "caption":
        seen = vectors[:, None].half()
    elif sees:
        seen = see_pictures(pictures, hashes, features, pooled, unfinished)
    has_pictures = any(hashes[i] for i in pool)
    if by_looks or not has_pictures:
        looks = None if seen is None else looks_of(seen)
    reference_texts = None
    if has_captions and hubness == "csls":
        reference_texts = [" ".join(tokens) for tokens in splits["train"]["tokens"]]
    index = RelationIndex(
        [pictures.ids[i] for i in pool],
        captions=[pictures.captions[i] for i in pool] if has_captions else None,
        text_embeddings=vectors[pool] if has_captions else None,
        object_labels=[pictures.object_labels[i] for i in pool] if has_objects else None,
        features=None if seen is None else seen[pool],
        content_hashes=[hashes[i] for i in pool] if has_pictures else None,
        encoder=encoder if has_captions else None,
        hubness=hubness,
        reference_texts=reference_texts,
        looks=looks[pool] if has_pictures and not by_looks else None,
        picture_encoder=features if by_looks else None,
    )

    report = {
        "pictures": dict(pictures.outcomes),
        "candidate_pool": candidate_pool,
        "pictures_in_pool": len(pool),
        "k": k,
        "text_encoder": encoder.name if has_captions else None,
        "intra_modal": "object labels" if has_objects else "looks" if by_looks else None,
        "hubness": hubness,
        "relations": {},
    }
    if authors_relations is not None:
        neighbors, lost, unknown = authors_neighbors(authors_relations, splits, index, k)
        report |= {"lost_posts": lost, "neighbors_not_in_pool": unknown}
    else:
        neighbors = {name: find_neighbors(split, index, pictures, hashes, looks, k) for name, split in splits.items()}
    splits = DatasetDict(splits)
    for name, columns in neighbors.items():
        for relation, found in columns.items():
            described = describe(found, splits[name]["id"], pictures, hashes)
            report["relations"].setdefault(relation, {})[name] = described
            splits[name] = replace_column(splits[name], relation, found)
        if features == "caption":
            rows = [pictures.row.get(picture) for picture in splits[name]["id"]]
            own = [None if row is None else vectors[row : row + 1].tolist() for row in rows]
            splits[name] = replace_column(splits[name], "object_features", own)
    log_report(report)

    index.save_pretrained(output_dir / "relation_index")
    write_dataset(splits, output_dir / "dataset", title=title, description=card_text(report))
    with write_whole(output_dir / "relation_report.json") as file:
        file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    remove(unfinished)
    return report


def find_neighbors(
    split: Dataset,
    index: RelationIndex,
    pictures: PostPictures,
    hashes: Sequence[str | None],
    looks: torch.Tensor | None,
    k: int,
) -> dict[str, list[list[dict]]]:
    """Return the columns `neighbors_inter`, if captions are known, and `neighbors_intra`, if objects are.

    Args:
        split: the posts.
        index: the pool.
        pictures: all pictures.
        hashes, looks: content hash of each, and how it looks ([N, L]).
        k: neighbours of each relation.
    """
    logger.info("looking for the neighbours of %d posts", len(split))
    rows = [pictures.row.get(picture) for picture in split["id"]]
    own_looks = None
    if looks is not None:
        own_looks = looks.new_zeros(len(split), looks.shape[1])
        for i, row in enumerate(rows):
            if row is not None:
                own_looks[i] = looks[row]
    inter, intra = index.find_neighbors(
        [" ".join(tokens) for tokens in split["tokens"]],
        [None if row is None else pictures.object_labels[row] for row in rows],
        k,
        ids=split["id"][:],
        content_hashes=[None if row is None else hashes[row] for row in rows],
        looks=own_looks,
    )
    columns = {"neighbors_inter": inter, "neighbors_intra": intra}
    return {name: found for name, found in columns.items() if found is not None}


def replace_column(split: Dataset, name: str, values: list) -> Dataset:
    """The dataset with the values as the column `name`."""
    columns = [column for column in split.features if column != name]
    return split.select_columns(columns).add_column(name, values, feature=COLUMNS[name].feature)


def main() -> None:
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    features = arguments.features
    if features not in ("caption", "none"):
        features = PictureFeatures.from_pretrained(features)
        if arguments.image_size is not None:
            features.image_processor.size = {"height": arguments.image_size, "width": arguments.image_size}
    splits = load_splits(arguments.dataset, captions_file=arguments.captions)
    encoder = None
    if any("caption" in split.column_names for split in splits.values()):
        encoder = HashingEncoder() if arguments.text_encoder == "hashing" else SentenceEncoder(arguments.text_encoder)
    with only_writer(arguments.output_dir):
        build_relations(
            splits,
            arguments.output_dir,
            encoder,
            candidate_pool=arguments.candidate_pool,
            hubness=arguments.hubness,
            features=features,
            pooled=arguments.pooled,
            k=arguments.k,
            left_out=read_id_list(arguments.exclude_ids) if arguments.exclude_ids else (),
            authors_relations=arguments.authors_relations,
            title=arguments.title,
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", required=True, help="folder or Hub id of the posts (see build_dataset)")
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
        "pixels; also written as the posts' own object_features); or none",
    )
    parser.add_argument(
        "--image_size", type=int, help="pixels square, as in training (default: what the image encoder was made for)"
    )
    parser.add_argument("--pooled", action="store_true", help="one vector a picture instead of one for each cell")
    parser.add_argument("--k", type=int, default=5, help="neighbours of each relation")
    parser.add_argument(
        "--authors_relations", metavar="FOLDER", help="take the neighbours from the R-GCN authors' files instead"
    )
    parser.add_argument("--title", default="Posts with neighbours", help="first line of the dataset card")
    return parser


if __name__ == "__main__":
    run_command(main)
