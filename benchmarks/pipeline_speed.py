"""The pipeline on texts against transformers' token classification, on the same encoder, side by side.

    python -m benchmarks.pipeline_speed --encoder sentence-transformers/all-MiniLM-L6-v2 --posts posts.jsonl

Both have an untrained layer of emissions in which O is likely; transformers' has no CRF, and joins pieces by its
strategy "simple".
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

from modeling_umgf import MultimodalNerPipeline, TextOnlyForTokenClassification, TextOnlyProcessor
from modeling_umgf.labels import bio_labels
from modeling_umgf.post_files import read_posts

from .record import write_result
from .side_by_side import side_by_side

COLUMNS = {"text": "text", "image": "image", "id": "id"}


def both_pipelines(encoder: str) -> tuple[Pipeline, Pipeline]:
    """Return transformers' pipeline and the package's."""
    torch.manual_seed(0)
    labels = bio_labels(["PER", "LOC", "ORG", "MISC"])
    names = dict(enumerate(labels))
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    theirs = AutoModelForTokenClassification.from_pretrained(
        encoder, id2label=names, label2id={label: i for i, label in names.items()}
    )
    ours = TextOnlyForTokenClassification.from_text_vision_pretrained(encoder, labels=labels)
    ours.classifier.load_state_dict(theirs.classifier.state_dict())
    for model in (theirs, ours):
        model.classifier.bias.data[0] += 1
    return (
        pipeline(
            "token-classification", model=theirs, tokenizer=tokenizer, aggregation_strategy="simple", device="cpu"
        ),
        MultimodalNerPipeline(ours, processor=TextOnlyProcessor(tokenizer), device="cpu"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--encoder", required=True, help="folder or Hub id of a text encoder")
    parser.add_argument("--posts", required=True, type=Path, help="a file of posts, as the command tag reads them")
    parser.add_argument("--count", type=int, default=512, help="posts that are read")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 8, 32, 128])
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
    configuration = {"encoder": Path(arguments.encoder).name, "posts": arguments.posts.name, "count": len(texts)}
    configuration |= {"device": "cpu", "threads": arguments.threads, "rounds": arguments.rounds}
    print(write_result("pipeline_speed", configuration, results, time.time() - begin))
    for name, row in results.items():
        print(f"{name}: {row}")


if __name__ == "__main__":
    main()
