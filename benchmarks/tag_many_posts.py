"""Tag many synthetic posts with the command: memory, speed, and a SIGKILL half way.

    python -m benchmarks.tag_many_posts

The model is tiny and untrained, so that the speed is about that of everything around a model: reading, pictures,
splitting, tokenising, CRF, writing. Fails if a run needs more memory than the ceiling, or if the killed run ends
differently from the other.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

from modeling_umgf import UmgfConfig, UmgfForTokenClassification, UmgfImageProcessor, UmgfProcessor
from modeling_umgf.labels import bio_labels
from modeling_umgf.tokenizer_from_scratch import train_tokenizer

from .record import write_result

CEILING_MB = 1500
WORDS = "Anna Bob Rome Paris meets sees in the a with 😍 #fun @user http://t.co/x1 &amp; … ! cafe\u0301 日本".split()


def write_posts(folder: Path, count: int) -> Path:
    """Write posts of 5 to 25 words; every second one has one of 100 pictures of 320 x 240 pixels."""
    choose = random.Random(0)
    (folder / "pictures").mkdir(exist_ok=True)
    for i in range(100):
        picture = Image.effect_noise((320, 240), 40).convert("RGB")
        picture.save(folder / "pictures" / f"{i}.jpg")
    path = folder / f"{count}.jsonl"
    with open(path, "w", encoding="utf-8") as file:
        for i in range(count):
            post = {"id": i, "text": " ".join(choose.choices(WORDS, k=choose.randint(5, 25)))}
            post |= {"image": f"{i // 2 % 100}.jpg"} if i % 2 else {}
            file.write(json.dumps(post, ensure_ascii=False) + "\n")
    return path


def save_tiny_model(folder: Path) -> None:
    """Save an untrained UMGF: one BERT layer of width 32, a ResNet of two small stages, crops of 32 x 32 pixels."""
    tokenizer = train_tokenizer([WORDS], 192)
    labels = bio_labels(["PER", "LOC", "ORG", "MISC"])
    text = {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"vocab_size": len(tokenizer), "intermediate_size": 64, "max_position_embeddings": 192}
    vision = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
    torch.manual_seed(0)
    config = UmgfConfig(
        text_config=text,
        vision_config=vision | {"layer_type": "basic"},
        d_model=32,
        num_heads=4,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )
    UmgfForTokenClassification(config).save_pretrained(folder)
    UmgfProcessor(UmgfImageProcessor(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)


def tag(posts: Path, output: str, kill_at: int | None = None, num_proc: int = 1) -> dict[str, float]:
    """Run the command; kill it (SIGKILL) when the output has so many lines. Returns seconds and peak memory (MB)."""
    command = [sys.executable, "-m", "modeling_umgf", "tag", posts.name, "--images", "pictures", "--model", "model"]
    command += ["--output", output, "--batch_size", "64", "--num_proc", str(num_proc)]
    begin = time.perf_counter()
    peak = 0
    process = subprocess.Popen(command, cwd=posts.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, peak_memory(process.pid))
        if kill_at is not None and count_lines(posts.parent / output) >= kill_at:
            process.kill()
        time.sleep(0.5)
    if process.returncode != (-signal.SIGKILL if kill_at is not None else 0):
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return {"seconds": round(time.perf_counter() - begin, 1), "peak_mb": round(peak / 1024)}


def peak_memory(process: int) -> int:
    """Most memory that a process had so far, in kB; 0 when it has ended."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--posts", type=int, default=100_000)
    count = parser.parse_args().posts
    begin = time.time()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        save_tiny_model(folder / "model")
        few = write_posts(folder, count // 10)
        many = write_posts(folder, count)
        runs = {f"{count // 10} posts": tag(few, "few.jsonl"), f"{count} posts": tag(many, "whole.jsonl")}
        runs[f"{count} posts, killed half way"] = tag(many, "killed.jsonl", kill_at=count // 2)
        saved = count_lines(folder / "killed.jsonl")
        runs["the rest"] = tag(many, "killed.jsonl", num_proc=2)
        whole = (folder / "whole.jsonl").read_bytes()
        identical = (folder / "killed.jsonl").read_bytes() == whole
        records = [json.loads(line) for line in whole.splitlines()]
        entities = sum(len(record["entities"]) for record in records)
    seconds = runs[f"{count} posts"]["seconds"]
    results = {
        "ceiling_mb": CEILING_MB,
        "runs": runs,
        "posts_per_second": round(count / seconds),
        "entities": entities,
        "lines_when_killed": saved,
        "killed_and_continued_output_is_identical": identical,
    }
    configuration = {"posts": count, "with_picture": count // 2, "batch_size": 64, "device": "cpu"}
    configuration |= {"model": "UMGF, untrained, width 32", "note": "the rest was tagged by two processes"}
    print(write_result("tag_many_posts", configuration, results, time.time() - begin, packages=("pillow", "tqdm")))
    print(json.dumps(results, indent=2))
    if not identical or max(run["peak_mb"] for run in runs.values()) > CEILING_MB:
        raise SystemExit("Too much memory, or the continued output differs.")


if __name__ == "__main__":
    main()
