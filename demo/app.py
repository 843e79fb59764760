"""A page to try a trained model: paste a post, drop a picture, see the names and the objects that mattered.

    python demo/app.py runs/contrast_tweets --examples data/contrast_tweets

On a Space the model is named by the variable MODEL, a detector by DETECTOR and a dataset of examples by EXAMPLES.
"""

import argparse
import itertools
import json
import os
import sys
import unicodedata

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr
from transformers import pipeline

try:
    import modeling_umgf  # noqa: F401  the installed package goes before the code in the model's folder
except ImportError:
    pass

COLORS = ("#f4a259", "#6cb4ee", "#7bc47f", "#e57fb1", "#b79ced", "#d9c34a", "#5fc7c0", "#e0796b")
EVERY_NAME = "linked to every name"
SHARED_COLOR = "#9ca3af"
COLUMNS = (
    "name",
    "type",
    "probability",
    "characters",
    "looks at (how far the gate opens)",
    "without the picture",
)
TYPES = {"PER": "person", "LOC": "place", "ORG": "organisation", "MISC": "any other name"}
INTRODUCTION = """# Who, where, what? Ask the picture

Paste a post and drop its picture. Names are marked in the text; an object that is linked to a name has the same colour
in the picture. Tick **What if there were no picture?** to see what the words alone would give.

"""


def explain_types(id2label: dict[int, str]) -> str:
    """What the entity types of the model stand for, as far as known."""
    types = dict.fromkeys(label[2:] for _, label in sorted(id2label.items()) if label[:2] in ("B-", "I-"))
    return " · ".join(f"**{name}** {TYPES[name]}" if name in TYPES else f"**{name}**" for name in types)


def number_names(*results: list[dict]) -> dict[tuple[int, int], int]:
    """Number the names of several results for one post, from left to right: the same characters, the same number."""
    spans = {span(entity) for entity in itertools.chain.from_iterable(results)}
    return {place: number for number, place in enumerate(sorted(spans), start=1)}


def span(entity: dict) -> tuple[int, int]:
    """The characters of a name."""
    return entity["start"], entity["end"]


def type_label(entity: dict, numbers: dict) -> str:
    return f"{numbers[span(entity)]} {entity['entity_group']}"


def box_label(entity: dict, numbers: dict) -> str:
    return f"{numbers[span(entity)]} {entity['word']}"


def color_map(numbers: dict, *results: list[dict]) -> dict[str, str]:
    """The colour of every label: that of its name."""
    colors = {EVERY_NAME: SHARED_COLOR}
    for entity in itertools.chain.from_iterable(results):
        color = COLORS[(numbers[span(entity)] - 1) % len(COLORS)]
        colors[type_label(entity, numbers)] = color
        colors[box_label(entity, numbers)] = color
    return colors


def highlight(text: str, entities: list[dict], numbers: dict) -> dict:
    """The value of a gr.HighlightedText."""
    spans = [{"entity": type_label(e, numbers), "start": e["start"], "end": e["end"]} for e in entities]
    return {"text": text, "entities": spans}


def mark_objects(picture, entities: list[dict], numbers: dict) -> tuple:
    """The value of a gr.AnnotatedImage: every box with the name that it is linked to."""
    owners: dict[tuple, list[str]] = {}
    for entity in entities:
        for node in entity.get("objects", ()):
            owners.setdefault(tuple(round(edge) for edge in node["box"]), []).append(box_label(entity, numbers))
    boxes = [(box, labels[0] if len(labels) == 1 else EVERY_NAME) for box, labels in owners.items()]
    return picture, boxes


def describe(entities: list[dict], without: list[dict]) -> list[list[str]]:
    """One row for each entity, in the order of COLUMNS."""
    alone = {span(entity): entity for entity in without}
    rows = []
    for entity in entities:
        other = alone.get(span(entity))
        objects = entity.get("objects", ())
        nodes = [f"{node.get('query', 'the whole picture')} ({node['weight']:.2f})" for node in objects]
        nodes += [f"picture {node['id']} ({node['weight']:.2f})" for node in entity.get("neighbors", ())]
        rows.append(
            [
                entity["word"],
                entity["entity_group"],
                f"{entity['score']:.3f}",
                f"{entity['start']} to {entity['end']}",
                ", ".join(nodes[:4]) or "nothing",
                f"{other['entity_group']} ({other['score']:.3f})" if other else "not found",
            ]
        )
    return rows


def say_what_changed(entities: list[dict], without: list[dict]) -> str:
    """One sentence on the effect of the picture."""
    kinds = {span(entity): entity["entity_group"] for entity in entities}
    kinds_without = {span(entity): entity["entity_group"] for entity in without}
    words = {span(entity): entity["word"] for entity in entities + without}
    changes = []
    for place, word in sorted(words.items()):
        if place not in kinds_without:
            changes.append(f"{word} would not be found")
        elif kinds.get(place) != kinds_without[place]:
            changes.append(f"{word} would be {kinds_without[place]}")
    return f"Without the picture {', '.join(changes)}." if changes else "Without the picture nothing would change."


def make_page(
    model: str, detector: str | None = None, examples: str | None = None, trust_remote_code: bool = False
) -> gr.Blocks:
    """Build the page.

    Args:
        model: folder or Hub id of a trained model.
        detector: id of a zero-shot object detector that finds the objects; without one, and without boxes, the whole
            picture is one object.
        examples: folder or Hub id of a dataset whose first test posts are offered.
        trust_remote_code: run the code in the model's folder, where the package is not installed.
    """
    tagger = pipeline("multimodal-ner", model=model, trust_remote_code=trust_remote_code)
    grounder = load_grounder(detector) if detector else None
    columns = list(tagger.processor.context)
    of_pictures = set(tagger.processor.describers.values())

    def tag(text: str, picture, boxes: str, no_picture: bool, *context: str) -> tuple:
        if not text.strip():
            return nothing("Type or paste a post first.")
        try:
            picture = tagger.open_picture(picture)
        except ValueError as error:
            return nothing(f"The picture cannot be used: {getattr(error, 'reason', error)}.")
        read = {name: own.strip() for name, own in zip(columns, context, strict=True) if own and own.strip()}
        post = {"text": text, "image": picture} | read
        words_alone = {"text": text} | {name: own for name, own in read.items() if name not in of_pictures}
        if boxes.strip() and picture is not None:
            try:
                post["objects"] = read_boxes(boxes)
            except ValueError as error:
                return nothing(str(error))
        results = tagger([post, words_alone], grounder=grounder, with_reading=True)
        for result in results:
            if "error" in result:
                return nothing(result["error"])
        entities, without = (result["entities"] for result in results)
        rtl = is_right_to_left(text)
        numbers = number_names(entities, without)
        colors = color_map(numbers, entities, without)
        marked = None if picture is None else mark_objects(picture, entities, numbers)
        return (
            gr.Markdown(say_how_it_was_read(results[0]["windows"])),
            gr.HighlightedText(highlight(text, entities, numbers), color_map=colors, rtl=rtl),
            gr.AnnotatedImage(marked, color_map=colors, visible=picture is not None),
            gr.HighlightedText(highlight(text, without, numbers), color_map=colors, visible=no_picture, rtl=rtl),
            gr.Textbox(say_what_changed(entities, without), visible=no_picture),
            describe(entities, without),
        )

    with gr.Blocks(title="Multimodal NER", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(INTRODUCTION + explain_types(tagger.model.config.id2label))
        with gr.Row():
            with gr.Column(scale=2):
                text = gr.Textbox(label="Post", lines=3, placeholder="Paste a post", elem_id="post")
                as_sent = {"type": "filepath", "image_mode": None}  # decoded later, where its size is looked at first
                picture = gr.Image(label="Picture (optional)", elem_id="picture", height=260, **as_sent)
                contexts = [
                    gr.Textbox(label=f"{name}, read after the post (optional)", elem_id=f"context-{name}")
                    for name in columns
                ]
                no_picture = gr.Checkbox(label="What if there were no picture?", elem_id="what-if")
                with gr.Accordion("Boxes, if you have them", open=False):
                    boxes = gr.Textbox(
                        label="JSON",
                        info='[{"box": [left, top, right, bottom], "phrase": {"start": word, "end": word after}}]',
                        value="",
                        elem_id="boxes",
                    )
                button = gr.Button("Find names", variant="primary", elem_id="run")
            with gr.Column(scale=3):
                message = gr.Markdown(elem_id="message")
                names = gr.HighlightedText(label="Names", elem_id="names")
                names_without = gr.HighlightedText(
                    label="Without the picture", visible=False, elem_id="names-without-picture"
                )
                change = gr.Textbox(label="What the picture is good for", visible=False, elem_id="change")
                objects = gr.AnnotatedImage(label="Objects, in the colour of their name", elem_id="objects", height=300)
        table = gr.Dataframe(headers=list(COLUMNS), label="Details", elem_id="table", interactive=False, wrap=True)
        inputs = [text, picture, boxes, no_picture, *contexts]
        outputs = [message, names, objects, names_without, change, table]
        text.blur(lambda text: gr.Textbox(rtl=is_right_to_left(text)), text, text, show_progress="hidden")
        button.click(tag, inputs, outputs)
        text.submit(tag, inputs, outputs)
        no_picture.input(tag, inputs, outputs)
        picture.clear(lambda: "", None, boxes)
        picture.upload(lambda: "", None, boxes)
        if examples:
            rows = load_examples(examples, tagger)
            offered = gr.Dataset(
                components=[text, picture],
                samples=[row[:2] for row in rows],
                type="index",
                label="Examples",
                elem_id="examples",
            )
            offered.click(rows.__getitem__, offered, [text, picture, boxes, *contexts]).then(tag, inputs, outputs)
    return page


def nothing(reason: str) -> tuple:
    """Why there is no result, and the page as it was: an error would cover every part of it."""
    return f"**{reason}**", *[gr.skip()] * 5


def is_right_to_left(text: str) -> bool:
    """Whether the first letter with a direction belongs to a script that is read from right to left."""
    directions = (unicodedata.bidirectional(letter) for letter in text or "")
    return next((direction != "L" for direction in directions if direction in ("L", "R", "AL")), False)


def say_how_it_was_read(windows: int) -> str:
    """That a post is longer than the model reads at once, in a sentence; empty where it is not."""
    return f"The post is long: it was read in {windows} overlapping parts." if windows > 1 else ""


def read_boxes(text: str) -> list[dict]:
    """Read the boxes that somebody typed."""
    try:
        boxes = json.loads(text)
        for box in boxes:
            left, top, right, bottom = map(float, box["box"])
            box["box"] = [left, top, right, bottom]
            box.setdefault("phrase", None)
        return list(boxes)
    except (ValueError, TypeError, KeyError, AttributeError):
        form = '[{"box": [0, 0, 50, 80], "phrase": {"start": 2, "end": 3}}]'
        raise ValueError(f"The boxes are not JSON of the form {form}.") from None


def load_grounder(detector: str):
    """Load a detector; needs the package, not only a model."""
    try:
        from modeling_umgf.grounding import Grounder
    except ImportError as error:
        raise OSError(f'a detector needs the package: `pip install -e ".[grounding]"` in a clone ({error})') from error
    return Grounder.from_pretrained(detector)


def load_examples(name: str, tagger, count: int = 6) -> list[list]:
    """Text, picture, boxes and context of test posts with a picture, whose text is split into the words of the data."""
    from datasets import load_dataset

    examples = []
    for row in load_dataset(name, split="test"):
        text = " ".join(row["tokens"])
        words = [word["word"] for word in tagger(text, aggregation_strategy="none")]
        if row["image"] is not None and words == row["tokens"]:  # else the boxes would belong to other words
            boxes = json.dumps(row["objects"]) if row.get("objects") else ""
            texts = [row.get(name) or "" for name in tagger.processor.context]
            texts = [", ".join(own) if isinstance(own, list) else own for own in texts]
            examples.append([text, row["image"], boxes, *texts])
        if len(examples) == count:
            break
    return examples


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A page to try a trained multimodal tagger.")
    parser.add_argument(
        "model", nargs="?", default=os.environ.get("MODEL"), help="folder or Hub id (or variable MODEL)"
    )
    parser.add_argument("--detector", default=os.environ.get("DETECTOR"), help="id of a zero-shot object detector")
    parser.add_argument("--examples", default=os.environ.get("EXAMPLES"), help="dataset with posts to offer")
    parser.add_argument(
        "--trust_remote_code",
        action="store_true",
        default=os.environ.get("TRUST_REMOTE_CODE", "").lower() in ("1", "true", "yes"),
        help="run the code in the model's folder, where the package is not installed (or variable TRUST_REMOTE_CODE=1)",
    )
    parser.add_argument("--port", type=int, default=None, help="default: the first free one from 7860 on")
    return parser.parse_args(argv)


def main() -> None:
    arguments = parse_arguments()
    if not arguments.model:
        sys.exit("app.py: no model. Name a trained one: `python demo/app.py runs/my_model`, or set the variable MODEL.")
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # none from the network
    try:
        page = make_page(arguments.model, arguments.detector, arguments.examples, arguments.trust_remote_code)
        page.launch(server_port=arguments.port, theme=gr.themes.Default(**fonts), footer_links=[])
    except (OSError, ValueError, ImportError) as error:
        sys.exit(f"app.py: cannot show {arguments.model}: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
