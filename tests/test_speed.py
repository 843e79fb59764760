"""The yardstick of speed: the plain recipes compute what the package computes, and the command measures both."""

import json

import pytest
import torch

from benchmarks import record, speed
from benchmarks.plain_recipe import PLAIN

SYSTEMS = list(PLAIN)


@pytest.mark.parametrize("from_pixels", [True, False])
@pytest.mark.parametrize("system", SYSTEMS)
@torch.no_grad()
def test_the_plain_recipe_gives_the_emissions_of_the_package_on_the_same_weights(system, from_pixels):
    tagger = speed.make_tagger(system, speed.QUICK).eval()
    for name, buffer in tagger.named_buffers():
        if "running_var" in name:
            buffer.uniform_(0.5, 2)
        elif "running_mean" in name:
            buffer.normal_()
    plain = PLAIN[system](tagger)
    batch = speed.make_batch(system, 5, speed.QUICK, from_pixels, labelled=True)
    emissions, mask = plain.emissions(batch)
    result = tagger(**batch)
    steps = result.logits.shape[1]
    real = mask[:, :steps]
    assert real.sum() == mask.sum() == (batch["labels"] != -100).sum()
    assert emissions[mask].std() > 0.01
    assert torch.allclose(emissions[:, :steps][real], result.logits[real], atol=1e-4)
    assert plain(batch).item() == pytest.approx(result.loss.item(), abs=1e-3)
    paths = plain({name: tensor for name, tensor in batch.items() if name != "labels"})
    assert paths == [row[row != -100].tolist() for row in result.predictions]


@pytest.mark.parametrize("system", SYSTEMS)
def test_without_dropout_a_step_of_the_plain_recipe_has_the_gradients_of_the_package(system):
    tagger = speed.make_tagger(system, speed.QUICK).train()
    for module in tagger.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    tagger.config.text_config.attention_probs_dropout_prob = 0.0
    tagger.eval()
    batch = speed.make_batch(system, 5, speed.QUICK, from_pixels=True, labelled=True)
    plain = PLAIN[system](tagger)
    gradients = []
    for run in (lambda: tagger(**batch).loss, lambda: plain(batch)):
        tagger.zero_grad()
        run().backward()
        gradients.append({n: p.grad.clone() for n, p in tagger.named_parameters() if p.grad is not None})
    ours, theirs = gradients
    names = {name for name in ours if not name.startswith("label_decoder")}
    assert names == {name for name in theirs if not name.startswith("label_decoder")}
    for name in names:
        assert torch.allclose(ours[name], theirs[name], atol=1e-4), name


def test_one_command_measures_everything_and_goes_on_where_it_was_stopped(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(speed, "RESULTS", tmp_path)
    measured = []
    measure = speed.measure

    def stops_once(part, sizes, device):
        if len(measured) == 3:
            measured.append("stopped")
            raise KeyboardInterrupt
        measured.append(part.title)
        return measure(part, sizes, device)

    monkeypatch.setattr(speed, "measure", stops_once)
    with pytest.raises(KeyboardInterrupt):
        speed.main(["--quick", "--threads", "1", "--name", "speed"])
    speed.main(["--quick", "--threads", "1", "--name", "speed"])
    assert [path.name for path in tmp_path.iterdir()] == ["speed.json"]
    results = json.loads((tmp_path / "speed.json").read_text())["results"]
    done = [title for title in measured if title != "stopped"]
    assert sorted(done) == sorted(results) and len(set(done)) == len(done) == 11
    for title, rows in results.items():
        assert all(row["seconds"] > 0 and row["GFLOP"] >= 0 for row in rows)
        kinds = {row["what"] for row in rows}
        assert {"package, float32", "package, bf16 autocast"} < kinds
        assert rows[0]["what"] == ("transformers, float32" if title.startswith("text_only") else "plain recipe")
    plain, package, *_ = results["umgf, inference from cached features, 5 posts"]
    assert plain["GFLOP"] >= package["GFLOP"] and package["times faster than from pixels"] > 0
