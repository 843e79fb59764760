"""The recipes as their releases run them, written down plainly: what the package is measured against.

Every post is padded to 128 pieces, attention scores and the gate of every pair of piece and node stand in memory, the
CNN runs on every crop, be it there or not, everything is float32, and the CRF is pytorch-crf's. The weights are those
of a model of the package, so that both must give the same emissions.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
import torchcrf
from torch import nn

from modeling_umgf.modeling_multimodal_ner import MultimodalNerForTokenClassification

PIECES = 128

Batch = dict[str, torch.Tensor]


class PlainRecipe(nn.Module):
    """What both recipes share.

    Args:
        tagger: the model of the package whose weights are used; it is not changed.
    """

    def __init__(self, tagger: MultimodalNerForTokenClassification):
        super().__init__()
        self.tagger = tagger
        self.model = tagger.model
        self.config = tagger.config
        self.model.text_model.set_attn_implementation("eager")
        self.crf = torchcrf.CRF(tagger.config.num_labels, batch_first=True)
        self.crf.load_state_dict(tagger.label_decoder.state_dict())

    def forward(self, batch: Batch) -> torch.Tensor:
        """Loss of a batch with labels, else the labels of each post."""
        emissions, mask = self.emissions(batch)
        if "labels" not in batch:
            return self.crf.decode(emissions, mask)
        labels = batch["labels"].clamp(min=0)
        return -self.crf(emissions, F.pad(labels, (0, mask.shape[1] - labels.shape[1])), mask, reduction="mean")

    def emissions(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores of all steps of the CRF, and which of them are real."""
        raise NotImplementedError

    def text(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """States [B, 128, h] of the pieces, and the real ones [B, 128]."""
        padding = (0, PIECES - batch["input_ids"].shape[1])
        ids, mask = F.pad(batch["input_ids"], padding), F.pad(batch["attention_mask"], padding)
        return self.model.text_model(input_ids=ids, attention_mask=mask).last_hidden_state, mask.bool()

    def cells(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Cells [B, m, r, F] of all crops [B, m, 3, H, W]."""
        states = self.model.vision_model(pixel_values=pixel_values.flatten(0, 1)).last_hidden_state
        return states.flatten(2).transpose(1, 2).unflatten(0, pixel_values.shape[:2])


class PlainUmgf(PlainRecipe):
    """UMGF as released: one step of the CRF a piece, every piece is linked to every node."""

    def emissions(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        model = self.model
        text, mask = self.text(batch)
        nodes = batch["object_mask"]
        if "pixel_values" in batch:
            objects = self.cells(batch["pixel_values"]).mean(2)
        else:
            objects = batch["object_features"]
        H_x = model.text_mlp(text)
        H_o = model.object_mlp(model.visual_projection(objects))
        edges = mask[:, :, None, None] & nodes[:, None, :, None]  # [B, n, m, 1]
        for layer in model.layers:
            C_x = attend(layer.text, H_x, mask)
            C_o = attend(layer.object, H_o, nodes)
            H_x = update(layer.text, C_x, C_o, edges)
            if not layer.is_last:
                H_o = update(layer.object, C_o, C_x, edges.transpose(1, 2))
        return self.tagger.classifier(torch.cat([text, H_x], dim=-1)), mask


def attend(part: nn.Module, H: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Self-attention of one modality."""
    return part.attention_norm(H + part.dropout(attention(part.attention, H, H, mask)))


def attention(part: nn.Module, queries: torch.Tensor, keys: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Attention with its scores and shares in memory; nothing where there is no key."""

    def heads(states: torch.Tensor) -> torch.Tensor:
        return states.unflatten(-1, (part.num_heads, -1)).transpose(1, 2)

    Q, K, V = heads(part.query(queries)), heads(part.key(keys)), heads(part.value(keys))
    scores = Q @ K.transpose(2, 3) / math.sqrt(Q.shape[-1])
    shares = scores.masked_fill(~mask[:, None, None], -1e9).softmax(-1)
    context = F.dropout(shares, part.dropout, part.training) @ V
    context = context.transpose(1, 2).flatten(2) * mask.any(1)[:, None, None]
    return part.output(context)


def update(part: nn.Module, own: torch.Tensor, other: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    """The gates of all pairs, one linear layer over both sides of each, then the feed-forward layer."""
    n, m = own.shape[1], other.shape[1]
    own_of_pair = own[:, :, None].expand(-1, -1, m, -1)
    other_of_pair = other[:, None].expand(-1, n, -1, -1)
    weight = torch.cat([part.gate.own.weight, part.gate.other.weight], dim=1)  # [d, 2 d]
    pairs = torch.cat([own_of_pair, other_of_pair], dim=-1)  # [B, n, m, 2 d]
    gates = torch.sigmoid(F.linear(pairs, weight, part.gate.own.bias))  # [B, n, m, d]
    gathered = (gates * other_of_pair * edges).sum(2)
    R = part.gate_norm(own + part.dropout(gathered))
    return part.feed_forward_norm(R + part.dropout(part.feed_forward(R)))


class PlainRgcn(PlainRecipe):
    """R-GCN with every region of every neighbour projected, every node of a star convolved, every piece updated."""

    def emissions(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        model = self.model
        H_S, mask = self.text(batch)
        own = batch["object_mask"].any(1)[:, None]  # [B, 1]: posts with a picture
        V = self.cells(batch["pixel_values"])[:, 0] if "pixel_values" in batch else batch["object_features"]
        V = model.projection(V * own[:, :, None])  # [B, r, d]
        picture_mask = own.expand(-1, V.shape[1])

        hub = (H_S * mask[..., None]).sum(1, keepdim=True) / mask.sum(1)[:, None, None]  # [B, 1, d]
        N = model.projection(batch["inter_neighbor_features"]).mean(2, keepdim=True)  # [B, k, 1, d]
        g = convolve(model.inter_convolution, hub, N, batch["inter_neighbor_scores"], own.new_ones(len(own), 1))
        H_S = H_S + torch.sigmoid(model.inter_gate.own(H_S) + model.inter_gate.other(g)) * g
        N = model.projection(batch["intra_neighbor_features"])  # [B, k, r, d]
        G = convolve(model.intra_convolution, V, N, batch["intra_neighbor_scores"], own)
        V = V + torch.sigmoid(model.intra_gate.own(V) + model.intra_gate.other(G)) * G

        H_S = model.dropout(H_S)
        S = transform(model.text_layer, H_S, H_S, mask)
        I = transform(model.image_layer, V, V, picture_mask)  # noqa: E741
        emissions = self.tagger.classifier(transform(model.cross_layer, S, I, picture_mask))
        starts = batch["word_starts"]
        index = starts.clamp(min=0)[..., None].expand(-1, -1, emissions.shape[2])
        return emissions.gather(1, index), starts >= 0


def convolve(part: nn.Module, hub, spokes, scores, has_hub) -> torch.Tensor:
    """One graph convolution on all nodes of a star, of which the hub is read."""
    s = scores * has_hub
    nodes = torch.cat([hub[:, None], spokes], dim=1)  # [B, 1 + k, r, d]
    A = torch.eye(nodes.shape[1], device=s.device).repeat(len(s), 1, 1)
    A[:, 0, 1:] = A[:, 1:, 0] = s
    degree = A.sum(-1)
    A = A / (degree[:, :, None] * degree[:, None]).sqrt()
    Z = torch.relu(part.weight(torch.einsum("bij,bjrd->bird", A, nodes)))
    return Z[:, 0] * (s > 0).any(1)[:, None, None]


def transform(part: nn.Module, queries: torch.Tensor, keys: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """A transformer layer."""
    context = attention(part.attention, queries, keys, mask) * mask.any(1)[:, None, None]
    C = part.attention_norm(queries + part.dropout(context))
    return part.feed_forward_norm(C + part.dropout(part.feed_forward(C)))


PLAIN: dict[str, Callable[[MultimodalNerForTokenClassification], PlainRecipe]] = {"umgf": PlainUmgf, "rgcn": PlainRgcn}
"""The recipes by the model type of their system."""
