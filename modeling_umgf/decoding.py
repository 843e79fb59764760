"""From a model's output for a batch to labels, spans and probabilities of words."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedModel

from .batching import own_pieces
from .labels import entity_spans
from .processing_multimodal_ner import MultimodalNerProcessor, PreparedPost
from .windows import Window


@dataclass
class DecodedBatch:
    """A batch as its label decoder sees it. Its steps s are the words, or the pieces (`subword_labels="x"`).

    Args:
        model: the tagger.
        emissions: [B, s, labels].
        mask: [B, s] real steps.
        predictions: [B, s] label ids, -100 = padding.
        step_of_word: [B, w] step of each word, -1 = none.
        gates: from each kind of node to [B, w, nodes], how much each word takes of each node.
    """

    model: PreTrainedModel
    emissions: torch.Tensor
    mask: torch.Tensor
    predictions: torch.Tensor
    step_of_word: torch.Tensor
    gates: dict[str, torch.Tensor]

    def word_labels(self) -> list[list[str]]:
        """BIO labels of the words of each post; O for a word without a step, and for a label that is not BIO."""
        no_step = self.step_of_word < 0
        predictions = self.predictions.gather(1, self.step_of_word.clamp(min=0)).masked_fill(no_step, -100)
        id2label = self.model.config.id2label
        names = {i: label if label[:2] in ("B-", "I-") else "O" for i, label in id2label.items()}
        return [[names.get(label, "O") for label in row] for row in predictions.tolist()]

    def word_scores(self) -> torch.Tensor:
        """Marginal probability of each word's label, [B, w]; 0 for a word without a step."""
        marginals = self.model.label_decoder.marginals(self.emissions, self.mask)  # [B, s, labels]
        chosen = marginals.gather(2, self.predictions.clamp(min=0)[..., None])[..., 0]  # [B, s]
        return chosen.gather(1, self.step_of_word.clamp(min=0)).masked_fill(self.step_of_word < 0, 0)

    def spans(self) -> list[list[tuple[int, int, str]]]:
        """Entities of each post: (first word, word after the last, type)."""
        return [entity_spans(labels) for labels in self.word_labels()]

    def span_scores(self, spans: Sequence[Sequence[tuple[int, int, str]]]) -> list[list[float]]:
        """Probability of the predicted labels of the words of each span, for the spans of each post."""
        steps = self.step_of_word.tolist()
        predictions = self.predictions.tolist()
        rows = []
        starts = []
        ends = []
        tags = []
        for row, own in enumerate(spans):
            for first, after, _ in own:
                rows.append(row)
                starts.append(steps[row][first])
                ends.append(steps[row][after - 1] + 1)
                tags.append(predictions[row][starts[-1] : ends[-1]])
        if not rows:
            return [[] for _ in spans]
        scores = self.model.label_decoder.span_probability(self.emissions, self.mask, rows, starts, ends, tags)
        scores = iter(scores.clamp(0, 1).tolist())
        return [[next(scores) for _ in own] for own in spans]

    def kept(self, window: Window) -> "DecodedBatch":
        """What a window keeps, of a batch whose rows all have its words; an end of the post is kept with it."""
        first, after = window.kept_first - window.first, window.kept_after - window.first  # words
        steps = self.mask[0].nonzero().flatten().tolist()
        steps_of_words = self.step_of_word[0].tolist()
        begin = steps[0] if first == window.first == 0 else steps_of_words[first]
        end = steps[-1] + 1 if after == len(steps_of_words) else steps_of_words[after]
        return DecodedBatch(
            self.model,
            self.emissions[:, begin:end],
            self.mask[:, begin:end],
            self.predictions[:, begin:end],
            self.step_of_word[:, first:after] - begin,
            {kind: gate[:, first:after] for kind, gate in self.gates.items()},
        )


def decode(model: PreTrainedModel, features: Mapping[str, torch.Tensor]) -> DecodedBatch:
    """Run a tagger on a batch.

    Args:
        model: a tagger of this package, in evaluation mode.
        features: a batch with `word_starts`.
    """
    features = dict(features)
    word_starts = features["word_starts"]
    if model.config.subword_labels == "x":
        step_of_word = features.pop("word_starts")
        mask = own_pieces(features["attention_mask"].bool(), features.get("context_mask"))
    else:
        mask = word_starts >= 0
        step_of_word = torch.arange(word_starts.shape[1], device=word_starts.device).where(mask, -1)
    outputs = model(**features, return_predictions=True, output_gates=True)
    gates = outputs.gates or {}
    if model.config.subword_labels == "x":
        index = step_of_word.clamp(min=0)[..., None]  # [B, w, 1]
        gates = {kind: gate.gather(1, index.expand(-1, -1, gate.shape[-1])) for kind, gate in gates.items()}
    return DecodedBatch(model, outputs.logits, mask, outputs.predictions, step_of_word, gates)


def decode_windows(
    model: PreTrainedModel, windows: Iterable[tuple[Window, Mapping[str, torch.Tensor]]]
) -> DecodedBatch:
    """Run a tagger on the windows of a post one after the other; the label decoder then sees the whole post at once.

    Args:
        model: a tagger of this package, in evaluation mode.
        windows: see `window_batches`; of a batch with several rows, all have the words of the window.
    """
    parts = [decode(model, features).kept(window) for window, features in windows]
    if len(parts) == 1:
        return parts[0]
    emissions = torch.cat([part.emissions for part in parts], dim=1)
    mask = torch.cat([part.mask for part in parts], dim=1)
    steps = []
    done = 0
    for part in parts:
        steps.append(part.step_of_word + done)
        done += part.mask.shape[1]
    gates = {kind: torch.cat([part.gates[kind] for part in parts], dim=1) for kind in parts[0].gates}
    return DecodedBatch(model, emissions, mask, model.best_labels(emissions, mask), torch.cat(steps, dim=1), gates)


def window_batches(
    model: PreTrainedModel,
    processor: MultimodalNerProcessor,
    post: PreparedPost,
    options: dict[str, dict] | None = None,
) -> Iterator[tuple[Window, Mapping[str, torch.Tensor]]]:
    """Make the batches for `decode_windows`, one at a time; the pictures of the post are encoded once.

    Args:
        model: the tagger, which says on which device.
        processor: its processor.
        post: a prepared post, with windows or without.
        options: for the processor.
    """
    takes_cells = "object_features" in model.base_model.fused_inputs()
    if post.windows and takes_cells and "pixel_values" in post.features:
        features = dict(post.features)
        pixels = features.pop("pixel_values")[None].to(model.device)  # [1, m, 3, H, W]
        real = features["object_mask"][None].to(model.device)
        features["object_features"] = model.base_model.encode_pictures(pixels, real)[0]  # [m, r, F]
        post = replace(post, features=features)
    for window, part in post.parts():
        yield window, processor.batch([part], options=options).to(model.device)
