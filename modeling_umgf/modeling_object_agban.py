"""Object-AGBAN: Object-Aware Multimodal Named Entity Recognition in Social Media Posts With Adversarial Learning.

Zheng et al., IEEE Transactions on Multimedia 2021, after what the authors' code does. One bilinear attention over all
pairs of a word and an object says what the objects tell each word, a gate how much of that it takes. A classifier
learns to tell words from objects, and its gradient, reversed, makes both alike.

Norms are over each word or object, where the authors' are over the batch, padding included; their weight normalisation,
and the step in eight in which the classifier rests, are left out.

Letters: T words, V objects, a attention, b what the objects tell a word, g gate; B posts, w words, m objects,
F features of an object, d width.
"""

import math

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import initialization as init

from .configuration_object_agban import ObjectAgbanConfig
from .layers import Gate, masked_softmax
from .modeling_multimodal_ner import MultimodalNerForTokenClassification, MultimodalNerModel, Pieces, WordStates


def perceptron(width: int, hidden: int, out: int) -> nn.Sequential:
    """Three linear layers, width → hidden → hidden / 2 → out, with a norm and ReLU between."""
    half = hidden // 2
    return nn.Sequential(
        nn.Linear(width, hidden),
        nn.LayerNorm(hidden),
        nn.ReLU(),
        nn.Linear(hidden, half),
        nn.LayerNorm(half),
        nn.ReLU(),
        nn.Linear(half, out),
    )


class BilinearAttention(nn.Module):
    """What objects tell words: one softmax over all pairs of a word and an object, not one for each word."""

    def __init__(self, config: ObjectAgbanConfig):
        super().__init__()
        d = config.text_config.hidden_size
        self.word = nn.Linear(d, config.bilinear_factor * d)  # W_t
        self.object = nn.Linear(d, config.bilinear_factor * d)  # W_v
        self.score = nn.Linear(config.bilinear_factor * d, 1, bias=False)  # h; a bias would add the same to all pairs
        self.value = nn.Linear(d, d)  # W
        self.dropout = nn.Dropout(config.attention_dropout)
        self.object_dropout = nn.Dropout(config.dropout)

    def forward(self, T: torch.Tensor, V: torch.Tensor, edges: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return b [B, w, d] and a [B, w, m], 0 without edges [B, w, m], for T [B, w, d] and V [B, m, d]."""
        t = torch.relu(self.word(self.dropout(T)))  # t' [B, w, 3d]
        v = self.object_dropout(torch.relu(self.object(self.dropout(V))))  # v' [B, m, 3d]
        scores = (t * self.score.weight[0]) @ v.transpose(1, 2)  # [B, w, m]
        a = masked_softmax(scores.flatten(1), edges.flatten(1)).unflatten(1, scores.shape[1:])
        b = a @ torch.relu(self.value(self.dropout(V)))
        return b, a


class ObjectAgbanModel(MultimodalNerModel):
    """Text encoder, image encoder, bilinear attention and gate. Without objects the words stay what the text says."""

    config: ObjectAgbanConfig
    averages_cells = True

    def __init__(self, config: ObjectAgbanConfig):
        super().__init__(config)
        d = config.text_config.hidden_size
        self.output_size = d
        self.object_mlp = perceptron(config.object_feature_size, config.object_size, d)
        self.attention = BilinearAttention(config)
        self.word_projection = nn.Linear(d, d)  # W_1
        self.message_projection = nn.Linear(d, d)  # W_2
        self.gate = Gate(d)
        self.norm = nn.LayerNorm(d)
        self.post_init()

    def fuse(
        self, text: Pieces, pixel_values=None, object_features=None, object_mask=None, inter_modal_mask=None
    ) -> WordStates:
        """Let objects tell words what they show.

        Args:
            text: states of the pieces.
            pixel_values: [B, m, 3, H, W] crops of the objects; or
            object_features: [B, m, F] their features.
            object_mask: [B, m] real objects; None = all.
            inter_modal_mask: not read: every word looks at every object, whichever phrase it was found for.
        """
        T, word_mask = text.words()  # [B, w, d], [B, w]
        cells, object_mask = self.encode_objects(T, pixel_values, object_features, object_mask)  # [B, m, r, F], [B, m]
        V = self.object_mlp(cells.mean(2))  # [B, m, d]
        edges = word_mask[:, :, None] & object_mask[:, None]  # [B, w, m]: all pairs
        b, a = self.attention(T, V, edges)  # [B, w, d], [B, w, m]
        g = self.gate(self.word_projection(T), self.message_projection(b))  # [B, w, d]
        x = self.norm(T + g * b)
        states = {"words": T, "objects": V, "object_mask": object_mask}
        return WordStates(x, word_mask, {"objects": a}, states)


class Alignment(nn.Module):
    """A classifier of words and objects that passes its gradient on with the other sign."""

    def __init__(self, config: ObjectAgbanConfig):
        super().__init__()
        self.growth = config.alignment_steps
        objects = config.alignment_object_weight
        self.weights = (1 / (1 + objects), objects / (1 + objects))  # of a word, of an object
        self.classifier = perceptron(config.text_config.hidden_size, config.alignment_size, 2)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))  # batches of training so far

    def strength(self) -> float:
        """How much of the gradient is passed on: 2 / (1 + exp(-10 p)) - 1, p = share of the growth that is done."""
        if not self.growth:
            return 1.0
        p = min(1.0, self.steps.item() / self.growth)
        return 2 / (1 + math.exp(-10 * p)) - 1

    def forward(self, states: torch.Tensor, mask: torch.Tensor, kind: int) -> torch.Tensor:
        """Loss [B] of states [B, n, d] where mask [B, n], which are words (kind 0) or objects (1)."""
        strength = self.strength()
        reversed_states = (1 + strength) * states.detach() - strength * states  # the same, but for the gradient
        logits = self.classifier(reversed_states).float()  # [B, n, 2]
        kinds = torch.full(mask.shape, kind, device=mask.device)
        loss = cross_entropy(logits.transpose(1, 2), kinds, reduction="none")  # [B, n]
        return self.weights[kind] * (loss * mask).sum(1)


class ObjectAgbanForTokenClassification(MultimodalNerForTokenClassification):
    """Object-AGBAN with emission layer and CRF, and the alignment of words and objects."""

    model_class = ObjectAgbanModel

    def __init__(self, config: ObjectAgbanConfig):
        super().__init__(config)
        self.alignment = Alignment(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Alignment):
            init.zeros_(module.steps)

    def auxiliary_task(self, words, emissions, labels, labelled):
        """Add the loss of telling words from objects, weighted."""
        if labels is None:
            return emissions, 0.0
        states = words.auxiliary
        loss = self.alignment(states["words"], labelled, 0)
        loss = loss + self.alignment(states["objects"], states["object_mask"], 1)
        if self.training:
            self.alignment.steps += 1
        return emissions, self.config.alignment_weight * loss
