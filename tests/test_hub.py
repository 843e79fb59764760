"""Push and pull over real HTTP, with the real clients in processes of their own, against a stand-in for the Hub."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import assert_same, tiny_tokenizer
from finished_run import train
from hub_stand_in import OWNER, STRANGER, HubStandIn
from PIL import Image
from test_modeling_rgcn import make as make_rgcn
from transformers import pipeline

from modeling_umgf import HashingEncoder, RelationIndex, RgcnProcessor, UmgfImageProcessor
from modeling_umgf.model_card import write_model_card

REPOSITORY = Path(__file__).resolve().parents[1]
HF = str(Path(sys.executable).with_name("hf"))
POSTS = ["Anna meets Bob Marley in Rome", "the cat of Paris sleeps", {"words": ["see", "Paris"], "image": None}]

PULL = """
import json, sys
class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("modeling_umgf", "dataset_scripts"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NotInstalled())
from transformers import pipeline
model, posts = sys.argv[1], json.loads(sys.argv[2])
print(json.dumps(pipeline("multimodal-ner", model=model, trust_remote_code=True)(posts)))
"""


@pytest.fixture(scope="module")
def hub():
    with HubStandIn() as hub:
        yield hub


@pytest.fixture(scope="module")
def posts(tmp_path_factory) -> list:
    """Three posts, and a fourth with a picture."""
    picture = tmp_path_factory.mktemp("pictures") / "red.png"
    Image.new("RGB", (40, 30), "red").save(picture)
    return [*POSTS, {"text": "Anna sleeps in Paris 😍", "image": str(picture)}]


@pytest.fixture(scope="module")
def umgf(tmp_path_factory) -> Path:
    """Output folder of a training run, whose labels vary."""
    folder = tmp_path_factory.mktemp("umgf") / "run"
    trainer = train(folder)
    trainer.model.classifier.weight.data.normal_(std=2)
    trainer.save_model()
    return folder


@pytest.fixture(scope="module")
def rgcn(tmp_path_factory, umgf) -> Path:
    """An R-GCN with its relation index and card."""
    folder = tmp_path_factory.mktemp("rgcn") / "run"
    index = RelationIndex(
        ["beach", "stadium", "park"],
        captions=["Anna on a beach", "a cat in Rome at night", "Paris sleeps"],
        object_labels=[["person"], ["cat"], ["person", "tree"]],
        features=torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)),
        encoder=HashingEncoder(64),
    )
    model = make_rgcn()
    model.classifier.weight.data.normal_(std=2)
    model.save_pretrained(folder)
    images = UmgfImageProcessor(size={"height": 32, "width": 32})
    RgcnProcessor(images, tiny_tokenizer(), index, k=3).save_pretrained(folder)
    facts = json.loads((umgf / "run.json").read_text())
    write_model_card(folder, facts | {"model_type": "rgcn"})
    return folder


def run(hub, home, *command, token=None, cwd=None, **environment) -> subprocess.CompletedProcess:
    environment = hub.environment(home, token, OMP_NUM_THREADS="1", HF_HUB_DISABLE_PROGRESS_BARS="1", **environment)
    return subprocess.run(
        list(map(str, command)),
        env=environment,
        cwd=cwd or home,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def pull(hub, home, model, posts, **environment) -> list:
    done = run(hub, home, sys.executable, "-P", "-c", PULL, model, json.dumps(posts), **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def upload(hub, home, folder, name, *options) -> None:
    done = run(hub, home, HF, "upload", name, folder, ".", "--exclude", "checkpoint-*/*", *options, token=OWNER)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["umgf", "rgcn"])
def test_what_is_pulled_from_the_hub_predicts_the_same_without_the_package_and_later_offline(
    hub, kind, posts, tmp_path, request
):
    folder = request.getfixturevalue(kind)
    upload(hub, tmp_path, folder, f"owner/{kind}", "--private")
    here = pipeline("multimodal-ner", model=str(folder))(posts)
    assert any(here), "the test needs entities"
    assert_same(pull(hub, tmp_path, f"owner/{kind}", posts, token=OWNER), here)
    asked = len(hub.requests)
    assert_same(pull(hub, tmp_path, f"owner/{kind}", posts, HF_HUB_OFFLINE="1"), here)
    assert len(hub.requests) == asked

    files = set(hub.repositories[f"models/owner/{kind}"].files)
    assert {"model.safetensors", "config.json", "README.md", f"modeling_{kind}.py", "decoders.py"} <= files
    assert ("relation_index/features.safetensors" in files) == (kind == "rgcn")
    assert not [name for name in files if re.search(r"\.(bin|pt|pth|pkl|pickle|ckpt|npy|npz)$|^checkpoint-", name)]


def test_the_snippet_of_a_pulled_card_runs(hub, umgf, tmp_path):
    upload(hub, tmp_path, umgf, "owner/card")
    download = run(hub, tmp_path, HF, "download", "owner/card", "--local-dir", tmp_path / "copy")
    assert download.returncode == 0, download.stderr
    snippet = re.search(r"```python\n(.*?)```", (tmp_path / "copy" / "README.md").read_text(), re.DOTALL)[1]
    program = PULL.split("from transformers")[0] + snippet + "\nassert isinstance(entities, list), entities"
    done = run(hub, tmp_path, sys.executable, "-P", "-c", program, cwd=tmp_path / "copy")
    assert done.returncode == 0, done.stderr[-3000:]


PUSH_FROM_PYTHON = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from finished_run import train
trainer = train(Path("run"), push_to_hub=True, hub_model_id="owner/from-training")
trainer.push_to_hub()
trainer.model.push_to_hub("owner/by-parts")
trainer.processing_class.push_to_hub("owner/by-parts")
"""


def test_training_pushes_model_processor_and_card_itself(hub, posts, tmp_path):
    done = run(hub, tmp_path, sys.executable, "-c", PUSH_FROM_PYTHON, REPOSITORY / "tests", token=OWNER)
    assert done.returncode == 0, done.stderr[-3000:]
    files = hub.repositories["models/owner/from-training"].files
    assert b'model="owner/from-training"' in files["README.md"]
    assert b"**three posts**" in files["README.md"]
    assert "training_args.bin" not in files
    here = pipeline("multimodal-ner", model=str(tmp_path / "run"))(posts)
    assert_same(pull(hub, tmp_path, "owner/from-training", posts), here)
    assert_same(pull(hub, tmp_path, "owner/by-parts", posts), here)


TAG = """
import sys
from modeling_umgf.tagging import main
for model in sys.argv[1:]:
    assert main(["tag", "posts.jsonl", "--output", "entities.jsonl", "--model", model]) == 1
"""


def errors_of_tagging(hub, home, *models, **environment) -> list[str]:
    """What the command `tag` says about models that cannot be loaded."""
    (home / "posts.jsonl").write_text(json.dumps({"text": "Anna"}) + "\n")
    done = run(hub, home, sys.executable, "-c", TAG, *models, **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert not (home / "entities.jsonl").exists()
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == len(models)
    return lines


def test_a_repository_that_is_missing_private_or_gated_is_one_line_that_says_what_to_do(hub, umgf, tmp_path):
    upload(hub, tmp_path, umgf, "owner/private", "--private")
    upload(hub, tmp_path, umgf, "owner/gated")
    hub.repositories["models/owner/gated"].gated = True
    names = ["owner/nothing", "owner/private", "owner/gated"]
    missing, private, gated = errors_of_tagging(hub, tmp_path, *names, token=STRANGER)
    assert "owner/nothing is not a local folder and is not a valid model identifier" in missing
    assert "If this is a private repository" in private and "hf auth login" in private
    assert "gated repo" in gated and "Make sure to have access to it at https://huggingface.co/owner/gated" in gated


def test_no_network_is_one_line_that_says_what_to_do(hub, tmp_path):
    [unreachable] = errors_of_tagging(hub, tmp_path, "owner/any", HF_ENDPOINT="http://127.0.0.1:9")
    assert "couldn't connect" in unreachable and "Check your internet connection" in unreachable
    [offline] = errors_of_tagging(hub, tmp_path, "owner/any", HF_HUB_OFFLINE="1")
    assert "couldn't find them in the cached files" in offline


PUSH_DATA = """
import sys
import datasets
sys.path.insert(0, sys.argv[1])
from finished_run import three_posts
pushed = datasets.DatasetDict({split: three_posts() for split in ("train", "test")})
pushed.push_to_hub("owner/tweets")
pulled = datasets.load_dataset("owner/tweets")
assert pulled["train"].features == pushed["train"].features
assert pulled["test"]["tokens"][:] == pushed["test"]["tokens"][:]
assert pulled["test"][0]["image"].getpixel((0, 0)) == (255, 0, 0)
"""


def test_a_dataset_goes_to_the_hub_and_back_with_its_pictures(hub, tmp_path):
    done = run(hub, tmp_path, sys.executable, "-c", PUSH_DATA, REPOSITORY / "tests", token=OWNER)
    assert done.returncode == 0, done.stderr[-3000:]


def test_pushing_without_a_login_ends_before_the_training_in_one_line(hub, tmp_path):
    command = [
        "--push_to_hub",
        "true",
        "--output_dir",
        "run",
        "--text_model",
        "any/encoder",
        "--train_file",
        "train.txt",
    ]
    done = run(hub, tmp_path, sys.executable, REPOSITORY / "train_umgf.py", *command)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "train_umgf.py: error: --push_to_hub needs a login: run `hf auth login`, or set HF_TOKEN."
    )
    assert not (tmp_path / "run").exists()


def test_a_push_without_permission_is_refused_by_the_stand_in(hub, umgf, tmp_path):
    upload(hub, tmp_path, umgf, "owner/umgf")
    for token in (None, STRANGER):
        done = run(hub, tmp_path, HF, "upload", "owner/umgf", umgf, ".", token=token)
        assert done.returncode != 0
