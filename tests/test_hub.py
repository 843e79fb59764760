"""Push and pull over real HTTP, with the real clients in processes of their own, against a stand-in for the Hub.

A process that loads torch takes seconds, so pushes and pulls of all models share as few as they can.
"""

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

import train_umgf
from modeling_umgf import HashingEncoder, RelationIndex, RgcnProcessor, UmgfImageProcessor
from modeling_umgf.__main__ import main
from modeling_umgf.model_card import write_model_card

pytestmark = pytest.mark.xdist_group("hub")  # what the tests share is made once

REPOSITORY = Path(__file__).resolve().parents[1]
HF = str(Path(sys.executable).with_name("hf"))
POSTS = ["Anna meets Bob Marley in Rome", "the cat of Paris sleeps", {"words": ["see", "Paris"], "image": None}]

NOT_INSTALLED = """
import json, sys
sys.path = [folder for folder in sys.path if folder]  # as -P does from Python 3.11 on
class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("modeling_umgf", "dataset_scripts"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NotInstalled())
"""
PULL = (
    NOT_INSTALLED
    + """
from transformers import pipeline
posts, *models = sys.argv[1:]
posts = json.loads(posts)
results = {model: pipeline("multimodal-ner", model=model, trust_remote_code=True)(posts) for model in models}
print(json.dumps(results))
"""
)
PUSH = """
import sys
from pathlib import Path
import datasets
sys.path.insert(0, sys.argv[1])
from finished_run import three_posts, train
from huggingface_hub import HfApi
from transformers import AutoModelForTokenClassification, AutoProcessor
trainer = train(Path("run"), push_to_hub=True, hub_model_id="owner/from-training")
trainer.push_to_hub()
HfApi().create_repo("owner/by-folder")
HfApi().upload_folder(repo_id="owner/by-folder", folder_path="run")
model = AutoModelForTokenClassification.from_pretrained("run")
model.push_to_hub("owner/in-two-parts", private=True)
AutoProcessor.from_pretrained("run").push_to_hub("owner/in-two-parts")
trainer.model.push_to_hub("owner/by-parts")
trainer.processing_class.push_to_hub("owner/by-parts")

pushed = datasets.DatasetDict({split: three_posts() for split in ("train", "test")})
pushed.push_to_hub("owner/posts")
pulled = datasets.load_dataset("owner/posts")
assert pulled["train"].features == pushed["train"].features
assert pulled["test"]["tokens"][:] == pushed["test"]["tokens"][:]
assert pulled["test"][0]["image"].getpixel((0, 0)) == (255, 0, 0)
"""
TAG = """
import sys, time
from modeling_umgf.__main__ import main
time.sleep = lambda seconds: None  # the client would wait longer before each new attempt
for model in sys.argv[1:]:
    assert main(["tag", "posts.jsonl", "--output", "entities.jsonl", "--model", model]) == 1
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


def upload(hub, home, folder, name, *options) -> None:
    left_out = ("--exclude", "checkpoint-*/*", "--exclude", "*.conll")
    done = run(hub, home, HF, "upload", name, folder, ".", *left_out, *options, token=OWNER)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Path:
    """A machine that pulls: its home, with the cache."""
    return tmp_path_factory.mktemp("client")


@pytest.fixture(scope="module")
def pushed_by_training(hub, tmp_path_factory) -> Path:
    """Output folder of a run that pushed model, processor, card and a dataset itself."""
    home = tmp_path_factory.mktemp("training")
    done = run(hub, home, sys.executable, "-c", PUSH, REPOSITORY / "tests", token=OWNER)
    assert done.returncode == 0, done.stderr[-3000:]
    return home / "run"


@pytest.fixture(scope="module")
def pulled(hub, client, posts, umgf, rgcn, pushed_by_training) -> dict[str, list]:
    """What every model that was pushed says of the posts, where the package is not installed."""
    upload(hub, client, umgf, "owner/umgf", "--private")
    upload(hub, client, rgcn, "owner/rgcn", "--private")
    return pull(hub, client, posts, "umgf", "rgcn", "from-training", "by-parts", token=OWNER)


def pull(hub, home, posts, *names, **environment) -> dict[str, list]:
    models = [f"owner/{name}" for name in names]
    done = run(hub, home, sys.executable, "-c", PULL, json.dumps(posts), *models, **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: json.loads(done.stdout)[model] for name, model in zip(names, models, strict=True)}


@pytest.mark.parametrize("kind", ["umgf", "rgcn"])
def test_what_is_pulled_from_the_hub_predicts_the_same_without_the_package(hub, kind, posts, pulled, request):
    here = pipeline("multimodal-ner", model=str(request.getfixturevalue(kind)))(posts)
    assert any(here), "the test needs entities"
    assert_same(pulled[kind], here)
    files = set(hub.repositories[f"models/owner/{kind}"].files)
    assert {"model.safetensors", "config.json", "README.md", f"modeling_{kind}.py", "decoders.py"} <= files
    assert ("relation_index/features.safetensors" in files) == (kind == "rgcn")
    assert not [name for name in files if re.search(r"\.(bin|pt|pth|pkl|pickle|ckpt|npy|npz)$|^checkpoint-", name)]


def test_what_was_pulled_once_works_offline(hub, client, posts, pulled):
    asked = len(hub.requests)
    again = pull(hub, client, posts, "umgf", "rgcn", HF_HUB_OFFLINE="1")
    assert_same([again["umgf"], again["rgcn"]], [pulled["umgf"], pulled["rgcn"]])
    assert len(hub.requests) == asked


def test_training_pushes_model_processor_and_card_itself(hub, posts, pulled, pushed_by_training):
    files = hub.repositories["models/owner/from-training"].files
    assert b'model="owner/from-training"' in files["README.md"]
    assert b"**three posts**" in files["README.md"]
    assert "training_args.bin" not in files
    here = pipeline("multimodal-ner", model=str(pushed_by_training))(posts)
    assert_same([pulled["from-training"], pulled["by-parts"]], [here, here])


def test_no_way_to_share_uploads_words_of_posts_or_checkpoints(hub, pulled, pushed_by_training):
    assert "Marley" in (pushed_by_training / "test_predictions.conll").read_text()
    assert list(pushed_by_training.glob("checkpoint-*"))
    for name in ("umgf", "from-training", "by-folder", "by-parts", "in-two-parts"):
        files = set(hub.repositories[f"models/owner/{name}"].files)
        assert {"model.safetensors", "processor_config.json", "README.md", "decoders.py"} <= files, name
        assert not [file for file in files if file.endswith(".conll") or file.startswith("checkpoint-")], name


def test_a_push_in_parts_has_the_card_of_the_run_or_one_that_says_what_is_not_known(hub, pulled):
    """transformers would write a template in which nothing is filled in."""
    cards = {}
    for name in ("in-two-parts", "by-parts"):
        cards[name] = hub.repositories[f"models/owner/{name}"].files["README.md"].decode()
        assert "More Information Needed" not in cards[name]
        assert f'model="owner/{name}"' in cards[name]
    assert hub.repositories["models/owner/in-two-parts"].private
    assert "**three posts**" in cards["in-two-parts"]
    assert "the data, the scores" in cards["by-parts"]


def test_a_dataset_goes_to_the_hub_and_back_with_its_pictures(hub, pushed_by_training):
    assert "datasets/owner/posts" in hub.repositories  # and back: the process that pushed it looked


def test_the_snippet_of_a_pulled_card_runs(hub, umgf, tmp_path):
    upload(hub, tmp_path, umgf, "owner/card")
    download = run(hub, tmp_path, HF, "download", "owner/card", "--local-dir", tmp_path / "copy")
    assert download.returncode == 0, download.stderr
    snippet = re.search(r"```python\n(.*?)```", (tmp_path / "copy" / "README.md").read_text(), re.DOTALL)[1]
    program = NOT_INSTALLED + snippet + "\nassert isinstance(entities, list), entities"
    done = run(hub, tmp_path, sys.executable, "-c", program, cwd=tmp_path / "copy")
    assert done.returncode == 0, done.stderr[-3000:]


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


def test_a_model_that_is_asked_for_offline_is_one_line_that_says_what_to_do(tmp_path, capsys):
    (tmp_path / "posts.jsonl").write_text(json.dumps({"text": "Anna"}) + "\n")
    out = tmp_path / "entities.jsonl"
    assert main(["tag", str(tmp_path / "posts.jsonl"), "--output", str(out), "--model", "owner/any"]) == 1
    error = capsys.readouterr().err
    assert "couldn't find them in the cached files" in error and error.count("\n") == 1
    assert not out.exists()


def test_pushing_without_a_login_ends_before_the_training_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(train_umgf, "get_token", lambda: None)
    command = ["--push_to_hub", "true", "--output_dir", str(tmp_path / "run")]
    command += ["--text_model", "any/encoder", "--train_file", "train.txt"]
    with pytest.raises(SystemExit) as ended:
        train_umgf.main(command)
    assert ended.value.code == (
        "train_umgf.py: error: --push_to_hub needs a login: run `hf auth login`, or set HF_TOKEN."
    )
    assert not (tmp_path / "run").exists()


def test_a_push_without_permission_is_refused_by_the_stand_in(hub, umgf, tmp_path):
    upload(hub, tmp_path, umgf, "owner/mine")
    for token in (None, STRANGER):
        done = run(hub, tmp_path, HF, "upload", "owner/mine", umgf, ".", token=token)
        assert done.returncode != 0
