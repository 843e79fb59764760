"""From a model's output for a batch to labels, spans and probabilities of words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from .batching import own_pieces
from .labels import entity_spans


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
