"""torch.compile and torch.export take models whole: not one step is left to Python."""

import pytest
import torch
from systems_under_test import make_batch, make_model, text_alone

GRAPH_SYSTEMS = ["umgf", "rgcn", "text_only"]

of_graph_systems = pytest.mark.parametrize("model_type", GRAPH_SYSTEMS)


def features_batch(model_type: str) -> dict[str, torch.Tensor]:
    """Three posts with labels; what they show is given as features."""
    batch = make_batch(model_type)
    if "pixel_values" in batch:
        pixels = batch.pop("pixel_values")
        generator = torch.Generator().manual_seed(0)
        batch["object_features"] = torch.randn(*pixels.shape[:2], 16, generator=generator)
    return batch


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@of_graph_systems
def test_a_step_of_training_compiles_whole_and_has_the_gradients_of_the_eager_one(model_type):
    model = make_model(model_type)  # in evaluation mode, without dropout
    batch = features_batch(model_type)
    gradients = []
    for step in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        model.zero_grad()
        loss = step(**batch).loss
        loss.backward()
        named = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        gradients.append(named | {"loss": loss.detach()})
    eager, compiled = gradients
    assert len(eager) > 10
    torch.testing.assert_close(compiled, eager, atol=1e-4, rtol=1e-3)


@of_graph_systems
@torch.no_grad()
def test_tagging_compiles_whole_also_from_pixels_without_pictures_and_with_gates(model_type):
    model = make_model(model_type)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    labelled = make_batch(model_type)
    pixels = {name: tensor for name, tensor in labelled.items() if name != "labels"}
    for batch in (pixels, text_alone(model_type, pixels)):
        eager, graph = model(**batch, output_gates=True), compiled(**batch, output_gates=True)
        assert torch.allclose(eager.logits, graph.logits, atol=1e-5)
        assert torch.equal(eager.predictions, graph.predictions)
        for kind, gate in (eager.gates or {}).items():
            assert torch.allclose(gate, graph.gates[kind], atol=1e-5)


@of_graph_systems
def test_what_is_masked_reaches_no_compiled_result(model_type):
    model = make_model(model_type)
    batch = make_batch(model_type)
    if "pixel_values" not in batch:
        pytest.skip("reads no picture")
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    broken = batch | {"pixel_values": batch["pixel_values"].clone()}
    broken["pixel_values"][~batch["object_mask"]] = torch.nan
    assert torch.equal(compiled(**batch).logits, compiled(**broken).logits)
    assert not batch["object_mask"].all()


@of_graph_systems
def test_tagging_and_loss_export_from_features(model_type):
    model = make_model(model_type)
    batch = features_batch(model_type)
    exported = torch.export.export(model, (), batch).module()
    expected = model(**batch)
    result = exported(**batch)
    assert torch.allclose(expected.logits, result.logits, atol=1e-5)
    assert torch.allclose(expected.loss, result.loss, atol=1e-4)
    assert torch.equal(expected.predictions, result.predictions)
