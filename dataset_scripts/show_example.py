"""A post of a dataset -> a PNG and an HTML page: its picture with the objects, its words in their colours, its edges.

python -m dataset_scripts.show_example data/described --id 16_05_01_113 --output_dir .
"""

import argparse
import html
from pathlib import Path
from typing import Any

from datasets import Dataset, Image
from PIL import Image as PilImage

from modeling_umgf.drawing import draw_objects, objects_to_html
from modeling_umgf.files import write_whole
from modeling_umgf.labels import entity_spans
from modeling_umgf.pictures import UnreadablePicture, open_picture

from .reading.bad_input import BadInput, run_command
from .reading.loading import load_posts


def show_example(split: Dataset, name: str) -> tuple[PilImage.Image, str]:
    """Draw one post with its gold entities, objects and edges.

    Args:
        split: a dataset with the columns of this package.
        name: id of the post.

    Returns:
        The drawing, and a self-contained HTML page with the same content, the caption and the labels.

    Raises:
        BadInput: There is no such post.
    """
    ids = split["id"][:]
    if name not in ids:
        raise BadInput(f"there is no post {name}; the first ones are {', '.join(ids[:3])}")
    if "image" in split.features:
        split = split.cast_column("image", Image(decode=False))
    row = split[ids.index(name)]
    labels = split.features["ner_tags"].feature.names
    entities = entity_spans([labels[tag] for tag in row["ner_tags"]])
    picture, why_none = _picture(row)
    objects = _objects(row, picture)
    facts = [why_none] if why_none else []
    if row.get("caption"):
        facts.append(f"caption: {row['caption']}")
    if row.get("object_labels"):
        facts.append(f"object labels: {', '.join(row['object_labels'])}")
    page = ["<!doctype html>", '<html lang="en"><meta charset="utf-8">', f"<title>{html.escape(name)}</title>"]
    page += [f"<h1>{html.escape(name)}</h1>", objects_to_html(picture, row["tokens"], objects, entities)]
    page += [f"<p>{html.escape(fact)}</p>" for fact in facts]
    page.append("</html>")
    return draw_objects(picture, row["tokens"], objects, entities), "\n".join(page)


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
    parser.add_argument("--id", required=True, help="of the post")
    parser.add_argument("--split", help="default: the first one that has the post")
    parser.add_argument("--output_dir", default=".", help="folder for <id>.png and <id>.html (default: this folder)")
    arguments = parser.parse_args()
    splits = load_posts(arguments.dataset)
    if arguments.split and arguments.split not in splits:
        raise BadInput(f"{arguments.dataset}: has no split {arguments.split}, only {', '.join(splits)}")
    names = [arguments.split] if arguments.split else list(splits)
    split = next((splits[name] for name in names if arguments.id in splits[name]["id"][:]), splits[names[0]])
    drawing, page = show_example(split, arguments.id)
    place = Path(arguments.output_dir) / Path(arguments.id).name
    with write_whole(f"{place}.png") as unfinished:
        drawing.save(unfinished, "PNG")
    print(f"{place}.png")
    with write_whole(f"{place}.html") as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    print(f"{place}.html")


if __name__ == "__main__":
    run_command(main)
