"""What holds for every registered system, with every label decoder."""

import json
import subprocess
import sys

import pytest
import torch
from conftest import LABELS
from systems_under_test import (
    SYSTEMS,
    make_batch,
    make_model,
    make_processor,
    node_masks,
    of_nodes,
    posts,
    text_alone,
)
from torch.nn.functional import pad
from transformers import AutoConfig, AutoModel, AutoModelForTokenClassification, AutoProcessor

from modeling_umgf import MultimodalNerPipeline
from modeling_umgf.decoders import LABEL_DECODERS
from modeling_umgf.explanation import explain
from modeling_umgf.other_labels import with_labels
from modeling_umgf.systems import system, systems, text_only_twin

pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
NAN = float("nan")

of_every_system = pytest.mark.parametrize("model_type", SYSTEMS)
with_every_decoder = pytest.mark.parametrize("label_decoder", list(LABEL_DECODERS))
SEEING = [name for name in SYSTEMS if systems()[name].reads_pictures]
of_every_seeing_system = pytest.mark.parametrize("model_type", SEEING)


def real_words(batch):
    return batch["word_starts"] >= 0


# ------------------------------------------------------------------------------------------------------- batches


@with_every_decoder
@of_every_system
def test_a_post_alone_is_tagged_as_in_a_batch(model_type, label_decoder):
    model, together = make_model(model_type, label_decoder=label_decoder), make_batch(model_type)
    expected = model(**together)
    losses = []
    for i, post in enumerate(posts()):
        alone = make_batch(model_type, [post], labels=False)
        words = len(post["words"])
        result = model(**alone, labels=together["labels"][i : i + 1, :words])
        torch.testing.assert_close(result.logits[0], expected.logits[i, :words], atol=1e-4, rtol=1e-4)
        assert torch.equal(result.predictions[0], expected.predictions[i, :words])
        losses.append(result.loss)
    torch.testing.assert_close(torch.stack(losses).mean(), expected.loss, atol=1e-4, rtol=1e-4)


def padded(model_type, batch):
    """The batch with more pieces, words and nodes, none of them real; features and scores of these nodes are NaN."""
    result = dict(batch)
    for name in ("input_ids", "attention_mask"):
        result[name] = pad(batch[name], (0, 3))
    result["word_starts"] = pad(batch["word_starts"], (0, 2), value=-1)
    result["labels"] = pad(batch["labels"], (0, 2), value=-100)
    for mask in node_masks(model_type, batch):
        if mask == "object_mask" and "inter_modal_mask" not in batch:
            continue  # one picture a post, no more
        for name in of_nodes(mask, batch):
            tensor = batch[name]
            more = tensor.new_full((tensor.shape[0], 2, *tensor.shape[2:]), NAN if tensor.is_floating_point() else 0)
            result[name] = torch.cat([tensor, more], dim=1)
    if "inter_modal_mask" in batch:
        result["inter_modal_mask"] = pad(batch["inter_modal_mask"], (0, 2, 0, 2), value=True)
    return result


@with_every_decoder
@of_every_system
def test_padding_and_masked_nodes_change_nothing_whatever_they_hold(model_type, label_decoder):
    model, batch = make_model(model_type, label_decoder=label_decoder), make_batch(model_type)
    expected, result = model(**batch), model(**padded(model_type, batch))
    words = batch["word_starts"].shape[1]
    real = real_words(batch)
    torch.testing.assert_close(result.logits[:, :words][real], expected.logits[real], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(result.loss, expected.loss, atol=1e-5, rtol=1e-4)
    assert torch.equal(result.predictions[:, :words], expected.predictions)
    assert (result.predictions[:, words:] == -100).all()


@of_every_system
def test_nan_in_masked_nodes_reaches_no_gradient(model_type):
    model = make_model(model_type).train()
    model(**padded(model_type, make_batch(model_type))).loss.backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


@with_every_decoder
@of_every_system
def test_words_may_be_missing_anywhere(model_type, label_decoder):
    model, batch = make_model(model_type, label_decoder=label_decoder), make_batch(model_type)
    holes = dict(batch)
    holes["word_starts"] = batch["word_starts"].clone()
    holes["word_starts"][0, 2] = holes["word_starts"][1, 0] = -1
    holes["labels"] = batch["labels"].masked_fill(holes["word_starts"] < 0, -100)
    result = model(**holes)
    assert torch.isfinite(result.loss)
    assert ((result.predictions == -100) == (holes["word_starts"] < 0)).all()


@of_every_seeing_system
def test_the_order_of_nodes_does_not_matter(model_type):
    model, batch = make_model(model_type), make_batch(model_type)
    turned = dict(batch)
    for mask in node_masks(model_type, batch):
        for name in of_nodes(mask, batch):
            turned[name] = batch[name].flip(1)
        if mask == "object_mask" and "inter_modal_mask" in batch:
            turned["inter_modal_mask"] = batch["inter_modal_mask"].flip(2)
    torch.testing.assert_close(model(**turned).logits, model(**batch).logits, atol=1e-5, rtol=1e-4)


@with_every_decoder
@of_every_system
def test_without_pictures_there_is_nothing_but_the_text(model_type, label_decoder):
    model, batch = make_model(model_type, label_decoder=label_decoder), make_batch(model_type)
    text = model(**text_alone(model_type, batch))
    masked = model(**batch | {mask: torch.zeros_like(batch[mask]) for mask in node_masks(model_type, batch)})
    assert torch.equal(text.logits, masked.logits)
    if model_type in SEEING:
        assert not torch.allclose(model(**batch).logits[0], text.logits[0], atol=1e-3)
    without = [{name: post[name] for name in ("words",)} for post in posts()]
    assert set(make_batch(model_type, without)) >= {"input_ids", "attention_mask", "word_starts", "labels"}


@of_every_system
def test_gates_say_what_each_word_takes_of_each_node(model_type):
    model, batch = make_model(model_type), make_batch(model_type)
    gates = model(**batch, output_gates=True).gates or {}
    kinds = systems()[model_type].processor.node_kinds
    assert gates.keys() <= kinds.keys()
    assert model(**batch).gates is None
    for kind, gate in gates.items():
        mask = batch[kinds[kind].mask]
        assert gate.shape == (*batch["word_starts"].shape, mask.shape[1])
        assert ((gate >= 0) & (gate <= 1)).all()
        assert not gate.masked_select(~mask[:, None]).any()
        assert gate.any()


# ------------------------------------------------------------------------------------------ training, saving, types


@pytest.mark.parametrize("pictures", [True, False])
@with_every_decoder
@of_every_system
def test_gradients_reach_every_parameter_that_is_trained(model_type, label_decoder, pictures):
    model, batch = make_model(model_type, label_decoder=label_decoder).train(), make_batch(model_type)
    model(**batch if pictures else text_alone(model_type, batch)).loss.backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    if pictures:
        still = [name for name, p in model.named_parameters() if p.requires_grad and not p.grad.any()]
        unread = ("position", "token_type", "bias")  # rows and shifts that this batch does not read
        assert [name for name in still if not any(word in name for word in unread)] == []


@with_every_decoder
@of_every_system
def test_what_is_saved_is_loaded_to_the_last_bit(model_type, label_decoder, tmp_path):
    model, processor = make_model(model_type, label_decoder=label_decoder), make_processor(model_type)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    own = systems()[model_type]
    loaded = AutoModelForTokenClassification.from_pretrained(tmp_path)
    assert type(loaded) is own.tagger and type(AutoModel.from_pretrained(tmp_path)) is own.tagger.model_class
    config = AutoConfig.from_pretrained(tmp_path)
    for name in set(own.config.own_settings()) - {"text_config", "vision_config"}:
        assert getattr(config, name) == getattr(model.config, name)
    state = loaded.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is own.processor
    one, two = (p.batch(p.prepare(posts())) for p in (processor, again))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    torch.testing.assert_close(loaded(**two).logits, model(**one).logits)


@with_every_decoder
@of_every_system
def test_a_model_that_goes_on_with_its_labels_in_another_order_forgets_nothing(model_type, label_decoder):
    model, batch = make_model(model_type, label_decoder=label_decoder), make_batch(model_type, labels=False)
    order = list(reversed(range(len(LABELS))))
    other = with_labels(model, [LABELS[i] for i in order]).eval()
    one, two = model(**batch), other(**batch)
    real = real_words(batch)
    torch.testing.assert_close(two.logits[real], one.logits[real][:, order], atol=1e-5, rtol=1e-4)
    assert torch.equal(torch.tensor(order)[two.predictions[real]], one.predictions[real])
    old, new = model.state_dict(), other.state_dict()
    heads = ("classifier.", "label_decoder.", "span_detection.")
    assert all(torch.equal(new[name], old[name]) for name in old if not name.startswith(heads))


WITHOUT_PACKAGE = """
import json, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "modeling_umgf":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
import torch
from transformers import AutoModel, AutoModelForTokenClassification, AutoProcessor, pipeline
torch.set_num_threads(1)
tags = {}
for folder in sys.argv[1:]:
    tagger = pipeline(model=folder, trust_remote_code=True)  # the task comes from the folder
    AutoModel.from_pretrained(folder, trust_remote_code=True)
    words = tagger("Anna meets Bob Marley", aggregation_strategy="none")
    tags[folder] = [[word["entity"], word["score"]] for word in words]
    tagger.save_pretrained(folder + "/again")
print(json.dumps(tags))
"""


def without_package(folders, tmp_path):
    """The tags that models give where this package is not installed: for each folder [label, score] of each word."""
    environment = {"HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_PACKAGE, *map(str, folders)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment | {"OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.strip().splitlines()[-1])


def test_saved_models_work_where_this_package_is_not_installed(tmp_path):
    folders = {}
    for model_type in SYSTEMS:
        folders[model_type] = tmp_path / model_type
        make_model(model_type).save_pretrained(folders[model_type])
        make_processor(model_type).save_pretrained(folders[model_type])
    tags = without_package(folders.values(), tmp_path)
    for model_type, folder in folders.items():
        tagger = MultimodalNerPipeline(make_model(model_type), processor=make_processor(model_type), device="cpu")
        expected = tagger("Anna meets Bob Marley", aggregation_strategy="none")
        assert [label for label, _ in tags[str(folder)]] == [row["entity"] for row in expected]
        assert [score for _, score in tags[str(folder)]] == pytest.approx([row["score"] for row in expected], abs=1e-4)
        assert (folder / "again" / "model.safetensors").exists()


@with_every_decoder
@of_every_system
def test_bfloat16_around_the_decoder_gives_finite_losses_in_float32(model_type, label_decoder, tmp_path):
    model, batch = make_model(model_type, label_decoder=label_decoder), make_batch(model_type)
    expected = model(**batch).loss
    with torch.autocast("cpu", torch.bfloat16):
        result = model.train()(**batch)
    result.loss.backward()
    assert result.logits.dtype == result.loss.dtype == torch.float32
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    model.eval().save_pretrained(tmp_path)
    half = AutoModelForTokenClassification.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.classifier.weight.dtype == torch.bfloat16
    assert all(p.dtype == torch.float32 for p in half.label_decoder.parameters())
    pixels = {name: tensor.bfloat16() for name, tensor in batch.items() if name == "pixel_values"}
    assert abs(half(**batch | pixels).loss - expected) < 0.2 * expected


@with_every_decoder
@of_every_system
def test_the_batch_is_what_a_model_exports_with(model_type, label_decoder):
    model, batch = make_model(model_type, label_decoder=label_decoder), make_batch(model_type, labels=False)
    if model_type in SEEING:  # which pictures are there is known when the model runs: features are exported
        cells, mask = model.model.encode_objects(
            torch.zeros(3, 1, 1), batch.pop("pixel_values"), None, batch["object_mask"]
        )
        batch |= {"object_features": cells.mean(2), "object_mask": mask}
    exported = torch.export.export(model, (), kwargs=batch, strict=False).module()
    result = exported(**batch)
    torch.testing.assert_close(result.logits, model(**batch).logits, atol=1e-5, rtol=1e-4)
    assert torch.equal(result.predictions, model(**batch).predictions)


# ------------------------------------------------------------------------------------------ pipeline and explanation


@with_every_decoder
@of_every_system
def test_the_pipeline_gives_the_same_results_for_every_batch_size(model_type, label_decoder):
    model = make_model(model_type, label_decoder=label_decoder)
    tagger = MultimodalNerPipeline(model, processor=make_processor(model_type), device="cpu")
    one, many = tagger(posts(), batch_size=1), tagger(posts(), batch_size=3)
    assert any(one)
    for entities, others in zip(one, many, strict=True):
        assert [entity["word"] for entity in entities] == [entity["word"] for entity in others]
        for entity, other in zip(entities, others, strict=True):
            assert 0 <= entity["score"] <= 1
            assert entity["score"] == pytest.approx(other["score"], abs=1e-4)


@of_every_system
def test_an_explanation_has_the_entities_of_the_pipeline_and_every_node(model_type):
    model, processor, post = make_model(model_type), make_processor(model_type), posts()[0]
    columns = {name: post[name] for name in processor.columns if name in post and name != "image"}
    explanation = explain(model, processor, words=post["words"], image=post["image"], **columns)
    entities = MultimodalNerPipeline(model, processor=processor, device="cpu")(post)
    assert [entity["word"] for entity in explanation.entities] == [entity["word"] for entity in entities]
    batch = make_batch(model_type, [post])
    real = sum(int(batch[mask].sum()) for mask in node_masks(model_type, batch))
    assert len(explanation.nodes) == real
    assert all(len(entity["nodes"]) == real for entity in explanation.entities)
    assert "<html" in explanation.to_html()
    assert explanation.to_image().width > 0


# -------------------------------------------------------------------------------------------------------- registry


def test_every_system_says_what_it_is():
    for model_type, own in systems().items():
        assert own.config.model_type == model_type
        assert own.config.title and own.config.summary.endswith(".")
        paper = own.config.paper
        assert paper is None or {"title", "authors", "venue", "year", "url"} == paper.keys()


def test_an_unknown_system_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=f"no system 'ugmf'; take one of {', '.join(SYSTEMS)}"):
        system("ugmf")


@of_every_system
def test_every_system_has_a_twin_that_reads_no_picture(model_type):
    assert not text_only_twin(model_type).reads_pictures
