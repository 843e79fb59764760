"""Memory of training on more and more posts with features: it stays what it is for a few.

    python -m benchmarks.training_memory

Posts are synthetic and lie in an Arrow file, as `datasets` keeps them; each training is a fresh process of a few steps
with a tiny model. Fails if the largest one needs more than `ALLOWED_MB` more memory of its own than the smallest.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow
import torch
from datasets import ClassLabel, Dataset, Features, List, Value

from modeling_umgf import UmgfConfig, UmgfForTokenClassification, UmgfImageProcessor, UmgfProcessor
from modeling_umgf.labels import bio_labels
from modeling_umgf.tokenizer_from_scratch import train_tokenizer
from modeling_umgf.training import MultimodalNerTrainer, MultimodalNerTrainingArguments

from .record import write_result

ALLOWED_MB = 150
AT_ONCE = 10_000
WIDTH = 64
LABELS = bio_labels(["PER", "LOC", "ORG", "MISC"])
WORDS = "Anna Bob Rome Paris meets sees in the a with today #fun @user … !".split()


def write_posts(path: Path, count: int) -> None:
    """Write posts of 5 to 25 words, each with the features of two objects."""
    choose = np.random.default_rng(0)
    features = Features(
        {
            "id": Value("string"),
            "tokens": List(Value("string")),
            "ner_tags": List(ClassLabel(names=LABELS)),
            "object_features": List(List(Value("float32"))),
        }
    )
    lengths = choose.integers(5, 26, AT_ONCE)
    rows = {
        "id": [str(i) for i in range(AT_ONCE)],
        "tokens": [choose.choice(WORDS, length).tolist() for length in lengths],
        "ner_tags": [choose.integers(0, len(LABELS), length).tolist() for length in lengths],
        "object_features": choose.standard_normal((AT_ONCE, 2, WIDTH)).astype(np.float32).tolist(),
    }
    table = pyarrow.table(rows, schema=features.arrow_schema)
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as stream:
        for _ in range(count // AT_ONCE):
            stream.write_table(table)


def own_memory() -> int:
    """Memory in MB that this process has for itself: pages of mapped files, which the system may drop, not counted."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024)


def train(path: str, steps: int) -> None:
    """Train on the posts of a file; prints seconds and memory as JSON."""
    torch.set_num_threads(1)
    tokenizer = train_tokenizer([WORDS], 192)
    text = {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"vocab_size": len(tokenizer), "intermediate_size": 64, "max_position_embeddings": 192}
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    config = UmgfConfig(text_config=text, d_model=32, num_heads=4, object_feature_size=WIDTH, **names)
    posts = Dataset.from_file(path)
    with tempfile.TemporaryDirectory() as folder:
        settings = {"max_steps": steps, "eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
        trainer = MultimodalNerTrainer(
            UmgfForTokenClassification(config),
            MultimodalNerTrainingArguments(folder, use_cpu=True, disable_tqdm=True, **settings),
            processing_class=UmgfProcessor(UmgfImageProcessor(), tokenizer),
            train_dataset=posts,
        )
        before = own_memory()
        begin = time.perf_counter()
        trainer.train()
    result = {"posts": len(posts), "own_memory_mb": own_memory(), "before_training_mb": before}
    print(json.dumps(result | {"seconds": round(time.perf_counter() - begin, 1)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--posts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=50)
    arguments = parser.parse_args()
    begin = time.time()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in arguments.posts:
            path = Path(folder, f"{count}.arrow")
            write_posts(path, count)
            code = f"from benchmarks.training_memory import train; train({str(path)!r}, {arguments.steps})"
            run = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
            results[f"{count} posts"] = json.loads(run.stdout.splitlines()[-1])
            results[f"{count} posts"]["file_mb"] = round(path.stat().st_size / 1e6)
            path.unlink()
    configuration = {"steps": arguments.steps, "feature_width": WIDTH, "model": "UMGF, untrained, width 32"}
    print(write_result("training_memory", configuration, results, time.time() - begin, packages=("pyarrow",)))
    print(json.dumps(results, indent=2))
    memory = [row["own_memory_mb"] for row in results.values()]
    if memory[-1] > memory[0] + ALLOWED_MB:
        raise SystemExit("Memory grows with the posts.")


if __name__ == "__main__":
    main()
