"""Posts in files or in a dataset -> a folder that `datasets.load_dataset` opens, with the pictures inside."""

import argparse
import logging

from modeling_umgf.split_counts import count_split

from .checks.twitter_releases import RELEASES, check_release, label_version
from .reading.bad_input import BadInput, run_command
from .reading.naming import add_naming, naming
from .reading.picture_check import describe
from .reading.splits import FILE_FORMATS, read_splits
from .writing.dataset_folder import check_output_dir, write_dataset

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")


def main() -> None:
    arguments = _parser().parse_args()
    check_output_dir(arguments.output_dir)
    given = {name: getattr(arguments, name) for name in SPLITS}
    files = {name: file for name, file in given.items() if file}
    if bool(arguments.dataset) == bool(files):
        raise BadInput("give the posts as either --dataset, or files with --train, --validation and --test")
    splits, pictures = read_splits(
        arguments.dataset or files,
        file_format=arguments.format,
        config_name=arguments.dataset_config,
        image_dir=arguments.image_dir,
        captions_file=arguments.captions,
        types=arguments.types,
        bio_repair=arguments.bio_repair,
        texts=arguments.texts,
        **naming(arguments),
    )
    counts = {name: count_split(split) for name, split in splits.items()}
    if arguments.release:
        check_release(arguments.release, counts)
    version = arguments.label_version or label_version(counts)
    logger.info(version)
    if arguments.bio_repair:
        version += " I- tags that continued nothing were turned into B-."
    lines = [version, "", "Pictures:", ""]
    lines += [f"- {name}: {describe(outcomes)}" for name, outcomes in pictures.items()]
    lines += ["", "A picture that is missing, unreadable or blank is null; none was replaced by another."]
    write_dataset(splits, arguments.output_dir, title=arguments.title, description="\n".join(lines))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    posts = parser.add_argument_group("posts")
    for name in SPLITS:
        posts.add_argument(f"--{name}", metavar="FILE", help=f"file of the {name} split")
    posts.add_argument("--format", choices=FILE_FORMATS, help="of the files; default: found out from name and content")
    posts.add_argument("--dataset", help="instead of files: folder or Hub id for load_dataset")
    posts.add_argument("--dataset_config", metavar="NAME", help="configuration of that dataset, where it has several")
    posts.add_argument("--image_dir", metavar="FOLDER", help="pictures <id>.jpg; default: no pictures from a folder")
    posts.add_argument("--captions", metavar="FILE", help="lines '<id>.jpg :caption'")
    posts.add_argument(
        "--texts", nargs="+", metavar="NAME", default=[], help="further columns of texts to keep, for a model's context"
    )
    add_naming(posts)
    labels = parser.add_argument_group("labels")
    labels.add_argument("--types", nargs="+", help="entity types in the order of the labels; default: those found")
    labels.add_argument("--bio_repair", action="store_true", help="turn I- tags that continue nothing into B-")
    labels.add_argument("--release", choices=RELEASES, help="stop unless the numbers are exactly those of this release")
    labels.add_argument("--label_version", metavar="TEXT", help="whose labels these are, for the card")
    parser.add_argument("--title", default="Posts with pictures and entities", help="first line of the card")
    parser.add_argument("--output_dir", required=True, help="folder to write; a dataset that is there is replaced")
    return parser


if __name__ == "__main__":
    run_command(main)
