"""Work for hours in little: `python long_runs.py training 2000` or `python long_runs.py pipeline 50000`.

Prints, as JSON, [steps or calls, bytes of memory, file handles, threads] at even distances, and for the pipeline
whether each kind of post gave the same the first time and the last.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS.parent)]
SAMPLES = 100


def size_of(process: int | str = "self") -> list[int]:
    """Memory that a process holds in bytes, its file handles and its threads."""
    place = Path(f"/proc/{process}")
    pages = int((place / "statm").read_text().split()[1])
    return [
        pages * os.sysconf("SC_PAGE_SIZE"),
        len(list((place / "fd").iterdir())),
        len(list((place / "task").iterdir())),
    ]


def growth(samples: list[list[int]], after: float = 0.5) -> dict[str, float]:
    """What a straight line through the samples says, those of the first part left out: it is for warming up.

    Returns:
        The bytes of memory that a step adds, the megabytes at the end, and how many file handles and threads came.
    """
    kept = np.array(samples[int(after * len(samples)) :], dtype=float)
    slope, _ = np.polyfit(kept[:, 0], kept[:, 1], 1)
    handles, threads = (kept[-1, 2:] - kept[0, 2:]).astype(int).tolist()
    return {"bytes": float(slope), "megabytes": float(kept[-1, 1]) / 1e6, "handles": handles, "threads": threads}


def train(steps: int) -> dict:
    """Train with pictures and dropout; 20 times on the way the model is evaluated and saved."""
    import torch
    from conftest import LABELS, tiny_config, tiny_tokenizer
    from datasets import ClassLabel, Dataset, Features, Image, List, Value
    from PIL import Image as PILImage
    from transformers import TrainerCallback

    from modeling_umgf import UmgfForTokenClassification, UmgfImageProcessor, UmgfProcessor
    from modeling_umgf.training import MultimodalNerTrainer, MultimodalNerTrainingArguments

    words, tags = ["Anna", "meets", "Bob", "Marley", "in", "Rome"], [1, 0, 1, 2, 0, 3]
    pictures = np.random.default_rng(0).integers(0, 256, (6, 40, 60, 3), dtype=np.uint8)
    rows = {
        "id": [str(i) for i in range(24)],
        "tokens": [words[: 2 + i % 5] for i in range(24)],
        "ner_tags": [tags[: 2 + i % 5] for i in range(24)],
        "image": [PILImage.fromarray(pictures[i % 6]) if i % 2 else None for i in range(24)],
    }
    columns = {"id": Value("string"), "tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=LABELS))}
    posts = Dataset.from_dict(rows, features=Features(columns | {"image": Image()}))
    samples = []

    class Look(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step % max(1, steps // SAMPLES) == 0:
                samples.append([state.global_step, *size_of()])

    every = max(1, steps // 20)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        arguments = MultimodalNerTrainingArguments(
            folder,
            max_steps=steps,
            per_device_train_batch_size=2,
            eval_strategy="steps",
            eval_steps=every,
            save_strategy="steps",
            save_steps=every,
            logging_strategy="steps",
            logging_steps=every,
            early_stopping_patience=0,
            disable_tqdm=True,
            use_cpu=True,
        )
        processor = UmgfProcessor(UmgfImageProcessor(size={"height": 32, "width": 32}), tiny_tokenizer())
        model = UmgfForTokenClassification(tiny_config())
        trainer = MultimodalNerTrainer(model, arguments, processor, posts, posts, callbacks=[Look()])
        trainer.train()
    return {"samples": samples}


def tag(calls: int) -> dict:
    """Call the pipeline with posts of all kinds, good and bad, alone and several at once."""
    from conftest import tiny_tokenizer
    from PIL import Image
    from tiny_taggers import make_random_model

    from modeling_umgf import MultimodalNerPipeline, UmgfImageProcessor, UmgfProcessor

    processor = UmgfProcessor(UmgfImageProcessor(size={"height": 32, "width": 32}), tiny_tokenizer())
    tagger = MultimodalNerPipeline(make_random_model(), processor=processor, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
        picture.save(Path(folder) / "good.jpg")
        (Path(folder) / "broken.jpg").write_bytes((Path(folder) / "good.jpg").read_bytes()[:300])
        kinds = [
            "Anna meets Bob Marley in Rome",
            {"text": "the cat of Paris sleeps", "image": str(Path(folder) / "good.jpg")},
            ["Anna", "see http://t.co/x 😍 RT @user"],
            "",
            {"text": "Anna in Rome", "image": str(Path(folder) / "broken.jpg")},
            "מחר Anna ברומא",
            {"words": ["Bob", "in", "Paris"]},
            [{"text": "Anna " * 20, "image": picture}, {"text": "Rome", "image": str(Path(folder) / "absent.jpg")}],
        ]
        samples = []
        first = []
        for i in range(calls):
            result = tagger(kinds[i % len(kinds)])
            if i < len(kinds):
                first.append(result)
            if (i + 1) % max(1, calls // SAMPLES) == 0:
                samples.append([i + 1, *size_of()])
        last = [tagger(kind) for kind in kinds]
    return {"samples": samples, "same": json.dumps(first, default=str) == json.dumps(last, default=str)}


if __name__ == "__main__":
    print(json.dumps({"training": train, "pipeline": tag}[sys.argv[1]](int(sys.argv[2]))))
