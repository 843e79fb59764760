"""A tweet of a dataset -> a PNG and an HTML page: its picture with the objects, its words in their colours, its edges.

python -m dataset_scripts.show_example data/described --id 16_05_01_113 --output_dir .
"""

import argparse
import html
import os
from pathlib import Path
from typing import Any

from datasets import Dataset, Image
from PIL import Image as PilImage

from modeling_umgf.drawing import draw_objects, objects_to_html
from modeling_umgf.labels import entity_spans
from modeling_umgf.pictures import UnreadablePicture, open_picture

from .loading import load_tweets
from .text_files import BadInput, run_command


def show_example(split: Dataset, tweet: str) -> tuple[PilImage.Image, str]:
    """Draw one tweet with its gold entities, objects and edges.

    Args:
        split: a dataset with the columns of this package.
        tweet: the id.

    Returns:
        The drawing, and a self-contained HTML page with the same content, the caption and the labels.

    Raises:
        BadInput: there is no such tweet.
    """
    if tweet not in (ids := split["id"][:]):
        raise BadInput(f"there is no tweet {tweet}; the first ones are {', '.join(ids[:3])}")
    if "image" in split.features:
        split = split.cast_column("image", Image(decode=False))
    row = split[ids.index(tweet)]
    names = split.features["ner_tags"].feature.names
    picture, note = _picture(row)
    content = (picture, row["tokens"], _objects(row, picture), entity_spans([names[tag] for tag in row["ner_tags"]]))
    facts = [note, f"caption: {row.get('caption')}" if row.get("caption") else ""]
    facts.append(f"object labels: {', '.join(row['object_labels'])}" if row.get("object_labels") else "")
    page = ["<!doctype html>", '<html lang="en"><meta charset="utf-8">', f"<title>{html.escape(tweet)}</title>"]
    page += [f"<h1>{html.escape(tweet)}</h1>", objects_to_html(*content)]
    page += [f"<p>{html.escape(fact)}</p>" for fact in facts if fact]
    return draw_objects(*content), "\n".join([*page, "</html>"])


def _picture(row: dict[str, Any]) -> tuple[PilImage.Image | None, str]:
    """The picture, or why there is none."""
    if row.get("image") is None:
        return None, "no picture"
    try:
        return open_picture(row["image"]), ""
    except UnreadablePicture as error:
        return None, error.reason


def _objects(row: dict[str, Any], picture: PilImage.Image | None) -> list[dict[str, Any]]:
    """What the processor makes visual nodes of: nothing without a picture, the whole picture if nobody looked."""
    if picture is None:
        return []
    if row.get("objects") is None:
        return [{"box": [0, 0, *picture.size], "query": "whole picture", "phrase": None}]
    return row["objects"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="folder or Hub id for load_dataset")
    parser.add_argument("--id", required=True, help="of the tweet")
    parser.add_argument("--split", help="default: the first one that has the tweet")
    parser.add_argument("--output_dir", default=".", help="folder for <id>.png and <id>.html (default: this folder)")
    arguments = parser.parse_args()
    splits = load_tweets(arguments.dataset)
    if arguments.split and arguments.split not in splits:
        raise BadInput(f"{arguments.dataset}: has no split {arguments.split}, only {', '.join(splits)}")
    names = [arguments.split] if arguments.split else list(splits)
    split = next((splits[name] for name in names if arguments.id in splits[name]["id"][:]), splits[names[0]])
    drawing, page = show_example(split, arguments.id)
    folder = Path(arguments.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for ending in ("png", "html"):
        unfinished, path = folder / f".{os.getpid()}.{ending}", folder / f"{Path(arguments.id).name}.{ending}"
        if ending == "png":
            drawing.save(unfinished)
        else:
            unfinished.write_text(page, encoding="utf-8")
        os.replace(unfinished, path)
        print(path)


if __name__ == "__main__":
    run_command(main)
