"""UMGF and R-GCN against their plain recipes, and text only against transformers' tagger, on the same batches.

    python -m benchmarks.speed                    # about ten minutes on two cores
    python -m benchmarks.speed --device cuda
    python -m benchmarks.speed --quick            # tiny models: only whether it runs

Models have random weights and full size: BERT-base, ResNet-152, 6 fusion layers; 16 posts of four nodes, as long as the
test posts of Twitter-2017, one of them without a picture (as 358 of its 4,819 are). All that does the same work has its
turn in every round, and so has a matrix product of the encoder's size. Stopped, the command goes on after the last
finished part.
"""

import argparse
import copy
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForTokenClassification, PreTrainedModel, ResNetConfig
from transformers.utils import logging

from modeling_umgf import (
    RgcnConfig,
    RgcnForTokenClassification,
    TextOnlyConfig,
    TextOnlyForTokenClassification,
    UmgfConfig,
    UmgfForTokenClassification,
)

from .memory import growth, held
from .plain_recipe import PLAIN, Batch
from .record import RESULTS, write_result
from .side_by_side import side_by_side

WORDS_OF_POSTS = {5: 1, 6: 5, 7: 10, 8: 25, 9: 27, 10: 39, 11: 52, 12: 44, 13: 64, 14: 66, 15: 51, 16: 49, 17: 28}
WORDS_OF_POSTS |= {18: 61, 19: 45, 20: 30, 21: 35, 22: 22, 23: 22, 24: 15, 25: 7, 26: 6, 27: 8, 28: 4, 29: 3, 31: 2}
WORDS_OF_POSTS |= {32: 1, 33: 1}
"""How many of the test posts of Twitter-2017 have how many words."""

MORE_PIECES = 0.153
"""Pieces of a word beyond the first: its 15.7 words a post are 20.1 pieces with [CLS] and [SEP] (BERT, uncased)."""

NODES = 4
NEIGHBOURS = 5
LABELS = 13
ADAM = {"lr": 1e-5}


@dataclass
class Sizes:
    """Sizes of the models and batches."""

    text: dict
    vision: dict
    system: dict
    pixels: int = 224
    posts: int = 16
    posts_of_a_step_from_pixels: int = 4
    posts_of_the_text_encoder: int = 64
    rounds_from_pixels: int = 3
    rounds_from_features: int = 5

    @property
    def features(self) -> int:
        return self.vision["hidden_sizes"][-1]


FULL = Sizes(text={}, vision={"depths": [3, 8, 36, 3]} | {"hidden_sizes": [256, 512, 1024, 2048]}, system={})
QUICK = Sizes(
    text={"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    | {"intermediate_size": 32, "max_position_embeddings": 128},
    vision={"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 1]},
    system={"d_model": 16, "num_heads": 2, "d_ff": 32},
    pixels=32,
    posts=5,
    posts_of_a_step_from_pixels=3,
    posts_of_the_text_encoder=6,
    rounds_from_pixels=1,
    rounds_from_features=1,
)


def make_tagger(system: str, sizes: Sizes) -> PreTrainedModel:
    """A tagger of the package, random and of that size; UMGF with the settings of its release."""
    torch.manual_seed(0)
    text, vision = BertConfig(**sizes.text).to_dict(), ResNetConfig(**sizes.vision).to_dict()
    encoders = {"text_config": text, "num_labels": LABELS}
    if system == "text_only":
        return TextOnlyForTokenClassification(TextOnlyConfig(**encoders))
    encoders |= {"vision_config": vision}
    if system == "rgcn":
        heads = {"num_heads": sizes.system["num_heads"]} if sizes.system else {}
        return RgcnForTokenClassification(RgcnConfig(**encoders | heads))
    released = {"num_layers": 6, "inter_edges": "full", "position_encoding": "none", "text_mlp": "linear"}
    released |= {"visual_attention": "qk_only", "visual_projection": True, "dropout": 0.4}
    return UmgfForTokenClassification(UmgfConfig(**encoders | released | sizes.system))


def make_batch(system: str, posts: int, sizes: Sizes, from_pixels: bool, labelled: bool) -> Batch:
    """Random posts with the lengths of real ones. UMGF is given no words: as in its release, pieces are labelled."""
    generator = torch.Generator().manual_seed(1)
    shares = torch.tensor(list(WORDS_OF_POSTS.values()), dtype=torch.float)
    drawn = torch.multinomial(shares, posts, replacement=True, generator=generator)
    lengths = torch.tensor(list(WORDS_OF_POSTS))[drawn]  # words
    starts = torch.full((posts, lengths.max()), -1)
    pieces = torch.zeros(posts, dtype=torch.long)
    for post, words in enumerate(lengths.tolist()):
        pieces_of_words = 1 + (torch.rand(words, generator=generator) < MORE_PIECES).long()
        starts[post, :words] = 1 + pieces_of_words.cumsum(0) - pieces_of_words
        pieces[post] = 2 + pieces_of_words.sum()
    mask = torch.arange(pieces.max()) < pieces[:, None]
    vocabulary = sizes.text.get("vocab_size", 28996)
    ids = torch.randint(5, vocabulary, mask.shape, generator=generator)
    batch = {"input_ids": ids * mask, "attention_mask": mask.long()}
    steps = mask if system in ("umgf", "transformers") else starts >= 0
    if system not in ("umgf", "transformers"):
        batch["word_starts"] = starts
    if labelled:
        labels = torch.randint(0, LABELS, steps.shape, generator=generator)
        batch["labels"] = labels.masked_fill(~steps, -100)
    if system in PLAIN:
        batch |= nodes(system, posts, sizes, from_pixels, generator)
    return batch


def nodes(system: str, posts: int, sizes: Sizes, from_pixels: bool, generator: torch.Generator) -> Batch:
    """What the posts show; the last one has no picture."""
    count = NODES if system == "umgf" else 1
    cells = (-(-sizes.pixels // 2 ** (1 + len(sizes.vision["hidden_sizes"])))) ** 2
    has_picture = torch.arange(posts) < posts - 1
    rows = count if system == "umgf" or from_pixels else cells
    batch = {"object_mask": has_picture[:, None].repeat(1, rows)}
    if from_pixels:
        batch["pixel_values"] = torch.randn(posts, count, 3, sizes.pixels, sizes.pixels, generator=generator)
    else:
        features = torch.randn(posts, rows, sizes.features, generator=generator)
        batch["object_features"] = features * has_picture[:, None, None]
    if system == "rgcn":
        for relation in ("inter", "intra"):
            shape = (posts, NEIGHBOURS, cells, sizes.features)
            batch[f"{relation}_neighbor_features"] = torch.randn(shape, generator=generator)
            batch[f"{relation}_neighbor_scores"] = 0.1 + 0.9 * torch.rand(posts, NEIGHBOURS, generator=generator)
    return batch


# What is timed


class Competitor:
    """A model that does some work on a batch: tags it, or makes a step of training.

    Args:
        model: called with the batch; with labels it returns a loss, or something with one.
        batch: the posts.
        autocast: the type in which products are computed, None = that of the weights.
        tf32: on a GPU, float32 products with fewer digits.
        fused: the optimiser that the Trainer takes by default; the recipes have torch's own default.
    """

    def __init__(self, model, batch, autocast=None, tf32=False, fused=True):
        self.model = model
        self.batch = batch
        self.autocast = autocast
        self.tf32 = tf32
        self.device = batch["input_ids"].device
        self.optimiser = None
        if "labels" in batch:
            learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
            self.optimiser = (
                torch.optim.AdamW(learned, fused=True, **ADAM) if fused else torch.optim.Adam(learned, **ADAM)
            )

    def __call__(self) -> None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.tf32
        if self.optimiser is None:
            self.model.eval()
            with torch.no_grad(), self.precision():
                self.run()
        else:
            self.model.train()
            with self.precision():
                loss = self.run()
            (loss if torch.is_tensor(loss) else loss.loss).backward()
            self.optimiser.step()
            self.optimiser.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def run(self):
        return self.model(self.batch) if type(self.model) in PLAIN.values() else self.model(**self.batch)

    def precision(self):
        return nullcontext() if self.autocast is None else torch.autocast(self.device.type, self.autocast)

    def memory(self, grown: int | None) -> float | None:
        """GB of weights, optimiser and what a call adds."""
        parts = (self.model,) if self.optimiser is None else (self.model, self.optimiser)
        return None if grown is None else round((held(*parts) + grown) / 1e9, 2)


class TextEncoder(nn.Module):
    """The text encoder of a tagger alone."""

    def __init__(self, tagger: PreTrainedModel):
        super().__init__()
        self.tagger = tagger

    def forward(self, input_ids, attention_mask, **_):
        return self.tagger.model.encode_text(input_ids, attention_mask)


BF16 = torch.bfloat16


def in_bf16(tagger: PreTrainedModel) -> PreTrainedModel:
    """A copy with bf16 weights."""
    return copy.deepcopy(tagger).to(BF16)


def of_package(tagger: PreTrainedModel, batch: Batch, name: str = "package") -> dict[str, Callable[[], Competitor]]:
    """A tagger in every precision, and on a GPU compiled too."""
    makers = {
        f"{name}, float32": lambda: Competitor(tagger, batch),
        f"{name}, bf16 autocast": lambda: Competitor(tagger, batch, autocast=BF16),
    }
    if "labels" not in batch:
        makers[f"{name}, bf16 weights"] = lambda: Competitor(in_bf16(tagger), batch)
    if batch["input_ids"].device.type == "cuda":
        compiled = torch.compile(tagger)
        makers[f"{name}, TF32"] = lambda: Competitor(tagger, batch, tf32=True)
        makers[f"{name}, TF32, compiled"] = lambda: Competitor(compiled, batch, tf32=True)
        makers[f"{name}, bf16 autocast, compiled"] = lambda: Competitor(compiled, batch, autocast=BF16)
    return makers


@dataclass
class Part:
    """One table: its competitors, the rounds they run, and whom all are compared with (in their own precision)."""

    title: str
    makers: dict[str, Callable[[], Competitor]]
    rounds: int
    reference: str


def parts(sizes: Sizes, device: torch.device, titles: set[str]) -> Iterator[Part]:
    """All tables but those that are there."""
    for system in PLAIN:
        for training in (False, True):
            for from_pixels in (True, False):
                work = "a step of training" if training else "inference"
                title = f"{system}, {work} from {'pixels' if from_pixels else 'cached features'}"
                if title in titles:
                    continue
                posts = sizes.posts_of_a_step_from_pixels if training and from_pixels else sizes.posts
                batch = on(device, make_batch(system, posts, sizes, from_pixels, training))
                tagger = make_tagger(system, sizes).to(device)
                if not from_pixels:
                    tagger.model.vision_model = None
                    tagger.model.config.finetune_cnn = False
                plain = PLAIN[system](copy.deepcopy(tagger)).to(device)
                makers = {"plain recipe": partial(Competitor, plain, batch, fused=False)} | of_package(tagger, batch)
                if not training and not from_pixels:
                    makers |= of_package(TextEncoder(tagger), batch, "text encoder alone")
                rounds = sizes.rounds_from_pixels if from_pixels else sizes.rounds_from_features
                yield Part(f"{title}, {posts} posts", makers, rounds, "plain recipe")
    for posts, training in ((sizes.posts, False), (sizes.posts, True), (sizes.posts_of_the_text_encoder, False)):
        title = f"text_only, {'a step of training' if training else 'inference'}, {posts} posts"
        if title in titles:
            continue
        batch = on(device, make_batch("text_only", posts, sizes, False, training))
        pieces = on(device, make_batch("transformers", posts, sizes, False, training))
        tagger = make_tagger("text_only", sizes).to(device)
        theirs = BertForTokenClassification(BertConfig(**sizes.text, num_labels=LABELS)).to(device)
        makers = of_package(theirs, pieces, "transformers") | of_package(tagger, batch)
        if not training:
            makers |= of_package(TextEncoder(tagger), batch, "text encoder alone")
        yield Part(title, makers, sizes.rounds_from_features, "transformers")


def on(device: torch.device, batch: Batch) -> Batch:
    return {name: tensor.to(device) for name, tensor in batch.items()}


def matrix_product(sizes: Sizes, device: torch.device, dtype: torch.dtype, tf32: bool = False) -> Callable[[], None]:
    """The largest product of the text encoder on 1,024 pieces."""
    config = BertConfig(**sizes.text)
    states = torch.randn(1024, config.hidden_size, device=device, dtype=dtype)
    weight = torch.randn(config.intermediate_size, config.hidden_size, device=device, dtype=dtype)

    def product() -> None:
        torch.backends.cuda.matmul.allow_tf32 = tf32
        for _ in range(10):
            F.linear(states, weight)
        if device.type == "cuda":
            torch.cuda.synchronize()

    product.operations = 10 * 2 * states.numel() * len(weight)
    return product


def measure(part: Part, sizes: Sizes, device: torch.device) -> list[dict]:
    """The rows of a table."""
    products = {"float32": matrix_product(sizes, device, torch.float32)}
    products["bf16"] = matrix_product(sizes, device, BF16)
    if device.type == "cuda":
        products["TF32"] = matrix_product(sizes, device, torch.float32, tf32=True)
    competitors = {}
    operations = {}
    memory = {}
    for name, make in part.makers.items():
        competitors[name] = competitor = make()
        if "compiled" in name:
            competitor()  # nothing can be counted in what is compiled
        else:
            with FlopCounterMode(display=False) as counter:
                competitor()  # a first step makes the state of the optimiser
            operations[name] = counter.get_total_flops()
            memory[name] = competitor.memory(growth(competitor, device))
    seconds = side_by_side(competitors | products, part.rounds, clock=time.perf_counter, warm_up=False)
    rows = []
    for name in competitors:
        precision = name.partition(", ")[2]
        reference = seconds.get(part.reference) or seconds[f"{part.reference}, {precision}"]
        row = {"what": name, "seconds": round(seconds[name], 4), "times faster": round(reference / seconds[name], 2)}
        counted = operations.get(name, operations.get(name.removesuffix(", compiled")))
        kind = "bf16" if "bf16" in name else "TF32" if "TF32" in name else "float32"
        rate = products[kind].operations / seconds[kind]
        row["GFLOP"] = round(counted / 1e9, 1)
        row["GFLOP/s"] = round(counted / seconds[name] / 1e9, 1)
        row["% of a matrix product"] = round(100 * counted / seconds[name] / rate, 1)
        row["peak memory, GB"] = memory.get(name)
        rows.append(row)
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="tiny models, which say nothing about speed")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda, where TF32 and compiled models are timed too")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="processor cores")
    parser.add_argument("--name", help="stored as benchmarks/results/NAME.json; default: speed, with --quick nowhere")
    options = parser.parse_args(arguments)
    begin = time.time()
    logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    sizes = QUICK if options.quick else FULL
    device = torch.device(options.device)
    configuration = {"posts": sizes.posts, "nodes": NODES, "fusion layers": 6, "pixels": sizes.pixels}
    configuration |= {
        "text encoder": sizes.text or "BERT-base",
        "image encoder": sizes.vision,
        "threads": options.threads,
    }
    configuration |= {"device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu"}
    configuration |= {
        "time": f"median of {sizes.rounds_from_pixels} rounds from pixels, else {sizes.rounds_from_features}"
    }

    name = options.name or ("" if options.quick else "speed")
    unfinished = RESULTS / f"{name}.unfinished.json"
    results = {}
    if name and unfinished.exists():
        before = json.loads(unfinished.read_text())
        results = before["results"] if before["configuration"] == configuration else {}
    for part in parts(sizes, device, {title.rpartition(", ")[0] for title in results} | results.keys()):
        results[part.title] = measure(part, sizes, device)
        print(part.title)
        for row in results[part.title]:
            print("   ", row)
        if name:
            unfinished.write_text(json.dumps({"configuration": configuration, "results": results}))
    compare_with_pixels(results)
    if name:
        print(write_result(name, configuration, results, time.time() - begin))
        unfinished.unlink(missing_ok=True)


def compare_with_pixels(results: dict[str, list[dict]]) -> None:
    """Say of inference from cached features how much faster it is than the plain recipe from pixels."""
    for title, rows in results.items():
        plain = results.get(title.replace("inference from cached features", "inference from pixels"))
        for row in rows if "inference from cached features" in title and plain else ():
            row["times faster than from pixels"] = round(plain[0]["seconds"] / row["seconds"], 1)


if __name__ == "__main__":
    main()
