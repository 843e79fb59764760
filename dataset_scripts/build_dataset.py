"""Tweets in files or in a dataset -> a folder that `datasets.load_dataset` opens, with the pictures inside."""

import argparse
import logging

from .counts import count_split
from .picture_check import describe
from .splits import FILE_FORMATS, read_splits
from .text_files import BadInput, run_command
from .twitter_releases import RELEASES, check_release, label_version
from .writing import check_output_dir, write_dataset

logger = logging.getLogger(__name__)


def main() -> None:
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    check_output_dir(arguments.output_dir)
    files = {name: getattr(arguments, name) for name in ("train", "validation", "test")}
    files = {name: file for name, file in files.items() if file}
    if bool(arguments.dataset) == bool(files):
        raise BadInput("give the tweets as either --dataset, or files with --train, --validation and --test")
    splits, pictures = read_splits(
        arguments.dataset or files,
        file_format=arguments.format,
        config_name=arguments.dataset_config,
        image_dir=arguments.image_dir,
        captions_file=arguments.captions,
        types=arguments.types,
        bio_repair=arguments.bio_repair,
    )
    counts = {name: count_split(split) for name, split in splits.items()}
    if arguments.release:
        check_release(arguments.release, counts)
    version = arguments.label_version or label_version(counts)
    logger.info(version)
    repaired = " I- tags that continued nothing were turned into B-." if arguments.bio_repair else ""
    lines = [version + repaired, "", "Pictures:", ""]
    lines += [f"- {name}: {describe(outcomes)}" for name, outcomes in pictures.items()]
    lines += ["", "A picture that is missing, unreadable or blank is null; none was replaced by another."]
    write_dataset(splits, arguments.output_dir, title=arguments.title, description="\n".join(lines))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    tweets = parser.add_argument_group("tweets")
    for name in ("train", "validation", "test"):
        tweets.add_argument(f"--{name}", metavar="FILE", help=f"file of the {name} split")
    tweets.add_argument("--format", choices=FILE_FORMATS, help="of the files; default: found out from name and content")
    tweets.add_argument("--dataset", help="instead of files: folder or Hub id for load_dataset")
    tweets.add_argument("--dataset_config", metavar="NAME", help="configuration of that dataset, where it has several")
    tweets.add_argument("--image_dir", metavar="FOLDER", help="pictures <id>.jpg; default: no pictures from a folder")
    tweets.add_argument("--captions", metavar="FILE", help="lines '<id>.jpg :caption'")
    labels = parser.add_argument_group("labels")
    labels.add_argument(
        "--types", nargs="+", help="entity types in the order of the labels; default: found in the data"
    )
    labels.add_argument("--bio_repair", action="store_true", help="turn I- tags that continue nothing into B-")
    labels.add_argument("--release", choices=RELEASES, help="stop unless the numbers are exactly those of this release")
    labels.add_argument("--label_version", metavar="TEXT", help="whose labels these are, for the card")
    parser.add_argument("--title", default="Tweets with pictures and entities", help="first line of the card")
    parser.add_argument(
        "--output_dir", required=True, help="folder to write; a dataset that is already there is replaced"
    )
    return parser


if __name__ == "__main__":
    run_command(main)
