"""A dataset of posts -> the same with columns computed from words and pictures: phrases, objects, captions, features.

    python -m dataset_scripts.add_descriptors data/posts --output_dir data/described \
        --columns noun_phrases objects object_features --encoder timm/resnet152.a1_in1k
    accelerate launch --num_processes 4 -m dataset_scripts.add_descriptors …

Results are kept in --cache_dir by picture content, model and settings: a run that was stopped goes on where it was, a
second run computes only what is new, and other settings never meet old results.
"""

import argparse
import json
import logging
import tempfile
from functools import partial

import torch
from accelerate import PartialState
from datasets import DatasetDict, disable_progress_bars

from modeling_umgf.noun_phrases import capitalised_phrases, find_noun_phrases, noun_phrase_extractor

from .descriptors.computation import compute_columns
from .descriptors.computed_columns import (
    ComputedColumn,
    caption_column,
    object_features_column,
    object_labels_column,
    objects_column,
    text_embedding_column,
)
from .reading.bad_input import BadInput, run_command
from .reading.loading import load_posts
from .writing.dataset_folder import card_text, check_output_dir, write_dataset

logger = logging.getLogger(__name__)

COMPUTABLE = ("noun_phrases", "objects", "object_labels", "caption", "object_features", "text_embedding")
"""What can be computed, in this order: features are those of the objects found before."""


def main() -> None:
    arguments = _parser().parse_args()
    state = PartialState()
    if not state.is_main_process:
        logging.disable(logging.WARNING)  # one process tells what is done
    check_output_dir(arguments.output_dir)
    splits = load_posts(arguments.dataset, arguments.dataset_config)
    columns = _requested_columns(arguments, splits, state.device)
    find_phrases = _noun_phrase_finder(arguments, splits)
    cache_dir = arguments.cache_dir or f"{arguments.output_dir.rstrip('/')}.descriptors"
    disable_progress_bars()  # those of datasets, for its temporary files
    with tempfile.TemporaryDirectory(prefix="descriptors-") as work_dir:
        splits, summary = compute_columns(
            splits,
            columns,
            cache_dir,
            work_dir,
            noun_phrases=find_phrases,
            batch_size=arguments.batch_size,
            num_proc=arguments.num_proc,
        )
        if state.is_main_process:
            title, description = card_text(arguments.dataset)
            lines = [description, "", "Computed by `dataset_scripts.add_descriptors`:", ""]
            if find_phrases is not None:
                lines.append(f"- `noun_phrases`: {json.dumps(_phrase_settings(arguments, find_phrases))}")
            lines += [f"- `{column.name}`: {json.dumps(column.settings)}" for column in columns]
            lines += [f"- {line}" for line in summary.lines()]
            write_dataset(splits, arguments.output_dir, title=title, description="\n".join(lines))
            logger.info("\n".join(summary.lines()))
        state.wait_for_everyone()


def _requested_columns(
    arguments: argparse.Namespace, splits: DatasetDict, device: torch.device
) -> list[ComputedColumn]:
    """The columns that need a model, in the order in which they are computed."""
    present = {key for split in splits.values() for key in split.features}
    wanted = set(arguments.columns)
    if wanted - {"noun_phrases", "text_embedding"} and "image" not in present:
        raise BadInput(f"{arguments.dataset}: has no column image, which these columns are computed from")
    if "object_features" in wanted and arguments.features_of != "objects" and "objects" in present | wanted:
        raise BadInput(
            f"--features_of {arguments.features_of}: these features are nodes of their own and do not fit the column "
            "objects; use --features_of objects, or a dataset without that column"
        )
    if "objects" in wanted and "object_features" in present - wanted:
        raise BadInput(
            f"{arguments.dataset}: its object_features belong to the objects that it has now; "
            "add object_features to --columns"
        )
    dtype = getattr(torch, arguments.dtype or ("bfloat16" if device.type == "cuda" else "float32"))
    make = {
        "objects": lambda: objects_column(
            arguments.detector,
            dtype,
            arguments.batch_size,
            min_score=arguments.min_score,
            boxes_per_query=arguments.boxes_per_query,
            max_objects=arguments.max_objects,
        ),
        "object_labels": lambda: object_labels_column(arguments.labeler, dtype, arguments.label_min_score),
        "caption": lambda: caption_column(arguments.captioner, dtype, arguments.prompt),
        "object_features": lambda: object_features_column(arguments.encoder, dtype, arguments.features_of),
        "text_embedding": lambda: text_embedding_column(arguments.text_encoder),
    }
    return [make[name]() for name in COMPUTABLE if name in wanted and name in make]


def _noun_phrase_finder(arguments: argparse.Namespace, splits: DatasetDict) -> partial | None:
    """What finds the noun phrases, where they are asked for or needed for objects."""
    known = all("noun_phrases" in split.features for split in splits.values())
    if "noun_phrases" not in arguments.columns and (known or "objects" not in arguments.columns):
        return None
    extractor = noun_phrase_extractor(arguments.noun_phrase_extractor)
    return partial(find_noun_phrases, extractor=extractor, merge_of=arguments.merge_of)


def _phrase_settings(arguments: argparse.Namespace, find_phrases: partial) -> dict[str, str | bool]:
    """What the noun phrases depend on, for the card: the extractor that was used, not only the one asked for."""
    fell_back = find_phrases.keywords["extractor"] is capitalised_phrases
    used = "capitals" if fell_back else arguments.noun_phrase_extractor
    return {"extractor": used, "merge_of": arguments.merge_of}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="folder or Hub id for load_dataset")
    parser.add_argument("--dataset_config", metavar="NAME", help="its configuration, where it has several")
    parser.add_argument("--output_dir", required=True, help="folder to write; a dataset that is there is replaced")
    parser.add_argument("--cache_dir", help="where results are kept (default <output_dir>.descriptors)")
    parser.add_argument("--columns", nargs="+", choices=COMPUTABLE, required=True, help="what to compute")
    phrases = parser.add_argument_group("noun_phrases")
    phrases.add_argument("--noun_phrase_extractor", default="nltk", help="nltk, spacy[:<pipeline>] or capitals")
    phrases.add_argument("--merge_of", action="store_true", help='join two phrases with nothing but "of" between them')
    objects = parser.add_argument_group("objects")
    objects.add_argument("--detector", default="IDEA-Research/grounding-dino-tiny", help="zero-shot object detector")
    objects.add_argument("--min_score", type=float, default=0.5, help="boxes below are no objects (default 0.5)")
    objects.add_argument("--boxes_per_query", type=int, default=1, help="boxes of a phrase (default 1)")
    objects.add_argument("--max_objects", type=int, default=12, help="objects of a post (default 12)")
    others = parser.add_argument_group("object_labels, caption, object_features, text_embedding")
    others.add_argument("--labeler", default="facebook/detr-resnet-50", help="closed-set object detector")
    others.add_argument("--label_min_score", type=float, default=0.5, help="objects below are not named (default 0.5)")
    others.add_argument("--captioner", default="Salesforce/blip-image-captioning-base", help="image-to-text model")
    others.add_argument("--prompt", help="text before the caption, which is not part of it")
    others.add_argument("--encoder", default="microsoft/resnet-152", help="image encoder of transformers or timm")
    others.add_argument(
        "--features_of",
        choices=("objects", "picture", "grid"),
        default="objects",
        help="a row of object_features for each object (default), one for the whole picture, or one for each grid cell",
    )
    others.add_argument("--text_encoder", default="sentence-transformers/all-MiniLM-L6-v2", help="sentence encoder")
    speed = parser.add_argument_group("speed")
    speed.add_argument("--batch_size", type=int, default=8, help="pictures in a forward pass (default 8)")
    speed.add_argument("--num_proc", type=int, default=1, help="processes that decode pictures (default 1)")
    speed.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="default: bfloat16 on a GPU, else float32"
    )
    return parser


if __name__ == "__main__":
    run_command(main)
