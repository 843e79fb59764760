"""The pipeline on texts against transformers' token classification, on the same encoder, side by side; and on pictures.

    python -m benchmarks.pipeline_speed --encoder sentence-transformers/all-MiniLM-L6-v2 --posts posts.jsonl \
        --pictures FOLDER --vision_encoder FOLDER_OR_ID

Both have an untrained layer of emissions in which O is likely; transformers' has no CRF, and joins pieces by its
strategy "simple". With pictures each gets the text of one of the posts, and UMGF on both encoders tags them.
"""

import argparse
import os
import time
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer, Pipeline, pipeline
from transformers.utils import logging

from modeling_umgf import (
    MultimodalNerPipeline,
    TextOnlyForTokenClassification,
    TextOnlyProcessor,
    UmgfForTokenClassification,
    UmgfImageProcessor,
    UmgfProcessor,
)
from modeling_umgf.labels import bio_labels
from modeling_umgf.post_files import read_posts

from .record import write_result
from .side_by_side import side_by_side

LABELS = bio_labels(["PER", "LOC", "ORG", "MISC"])
COLUMNS = {"text": "text", "image": "image", "id": "id"}


def both_pipelines(encoder: str) -> tuple[Pipeline, Pipeline]:
    """Return transformers' pipeline and the package's."""
    torch.manual_seed(0)
    names = dict(enumerate(LABELS))
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    theirs = AutoModelForTokenClassification.from_pretrained(
        encoder, id2label=names, label2id={label: i for i, label in names.items()}
    )
    ours = TextOnlyForTokenClassification.from_text_vision_pretrained(encoder, labels=LABELS)
    ours.classifier.load_state_dict(theirs.classifier.state_dict())
    for model in (theirs, ours):
        model.classifier.bias.data[0] += 1
    return (
        pipeline(
            "token-classification", model=theirs, tokenizer=tokenizer, aggregation_strategy="simple", device="cpu"
        ),
        MultimodalNerPipeline(ours, processor=TextOnlyProcessor(tokenizer), device="cpu"),
    )


def picture_pipeline(encoder: str, vision_encoder: str) -> Pipeline:
    """Return the package's pipeline on pictures."""
    torch.manual_seed(0)
    model = UmgfForTokenClassification.from_text_vision_pretrained(encoder, vision_encoder, LABELS)
    processor = UmgfProcessor(
        UmgfImageProcessor.from_vision_model(vision_encoder), AutoTokenizer.from_pretrained(encoder)
    )
    return MultimodalNerPipeline(model, processor=processor, device="cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--encoder", required=True, help="folder or Hub id of a text encoder")
    parser.add_argument("--posts", required=True, type=Path, help="a file of posts, as the command tag reads them")
    parser.add_argument("--count", type=int, default=512, help="posts that are read")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--pictures", type=Path, help="folder of pictures")
    parser.add_argument("--vision_encoder", help="folder or Hub id of an image encoder, for --pictures")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="processor cores")
    arguments = parser.parse_args()
    begin = time.time()
    logging.set_verbosity_error()
    torch.set_num_threads(arguments.threads)
    texts = [post["text"] for post in islice(read_posts(arguments.posts, COLUMNS, None), arguments.count)]
    theirs, ours = both_pipelines(arguments.encoder)
    functions = {}
    for batch_size in arguments.batch_sizes:
        functions[f"transformers, batch {batch_size}"] = partial(theirs, texts, batch_size=batch_size)
        functions[f"package, batch {batch_size}"] = partial(ours, texts, batch_size=batch_size)
    seconds = side_by_side(functions, arguments.rounds, clock=time.perf_counter)
    results = {}
    for batch_size in arguments.batch_sizes:
        reference = seconds[f"transformers, batch {batch_size}"]
        own = seconds[f"package, batch {batch_size}"]
        rates = {
            "transformers_posts_per_second": round(len(texts) / reference),
            "package_posts_per_second": round(len(texts) / own),
        }
        results[f"batch {batch_size}"] = rates | {"times_faster": round(reference / own, 2)}
    if arguments.pictures:
        files = sorted(str(path) for path in arguments.pictures.iterdir() if path.is_file())
        posts = [{"text": text, "image": file} for text, file in zip(texts, files, strict=False)]
        tagger = picture_pipeline(arguments.encoder, arguments.vision_encoder)
        functions = {size: partial(tagger, posts, batch_size=size) for size in arguments.batch_sizes}
        for size, own in side_by_side(functions, arguments.rounds, clock=time.perf_counter).items():
            results[f"{len(posts)} pictures, batch {size}"] = {"package_posts_per_second": round(len(posts) / own, 1)}
    configuration = {"encoder": Path(arguments.encoder).name, "posts": arguments.posts.name, "count": len(texts)}
    configuration |= {"device": "cpu", "threads": arguments.threads, "rounds": arguments.rounds}
    print(write_result("pipeline_speed", configuration, results, time.time() - begin))
    for name, row in results.items():
        print(f"{name}: {row}")


if __name__ == "__main__":
    main()
