"""IAIK: Multimodal Named Entity Recognition with Image Attributes and Image Knowledge.

Chen et al., DASFAA 2021; a re-interpretation, since only the abstract was read. Attributes of the picture, such as the
classes that an image classifier sees, and what a knowledge graph says of these are word vectors. Words attend to both,
a gate each decides how much they take, and text, attributes and knowledge are labelled side by side.

Letters: x words, a attributes, k knowledge; B posts, w words, m attributes (or pictures of r cells), s pieces of
knowledge, F width of their vectors, d width.
"""

import torch
from torch import nn

from .configuration_iaik import IaikConfig
from .layers import Gate
from .modeling_multimodal_ner import MultimodalNerForTokenClassification, MultimodalNerModel, Pieces, WordStates
from .recurrent_layers import AdditiveAttention


class GuidedReading(nn.Module):
    """Words look for what concerns them among some nodes, and take of it what their gates let through."""

    def __init__(self, config: IaikConfig):
        super().__init__()
        d = config.text_config.hidden_size
        self.projection = nn.Linear(config.object_feature_size, d)
        self.key = nn.Linear(d, d, bias=False)
        self.attention = AdditiveAttention(d, d)
        self.gate = Gate(d)

    def forward(self, x: torch.Tensor, nodes: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Read nodes [B, m, F] where mask [B, m], guided by words x [B, w, d].

        Returns:
            What each word takes [B, w, d], and how much it takes of each node [B, w, m]; 0 without any.
        """
        a = self.projection(nodes)  # [B, m, d]
        shares = self.attention(x, self.key(a), mask)  # [B, w, m]
        found = shares.to(a.dtype) @ a  # [B, w, d]
        g = self.gate(x, found)  # [B, w, d]
        return g * found, g.mean(-1, keepdim=True) * shares


class IaikModel(MultimodalNerModel):
    """Text encoder, image encoder, and the reading of attributes and of knowledge. Without a picture both are 0."""

    config: IaikConfig

    def __init__(self, config: IaikConfig):
        super().__init__(config)
        self.output_size = 3 * config.text_config.hidden_size
        self.dropout = nn.Dropout(config.dropout)
        self.attributes = GuidedReading(config)
        self.knowledge = GuidedReading(config)
        self.post_init()

    def fuse(
        self,
        text: Pieces,
        pixel_values=None,
        object_features=None,
        object_mask=None,
        knowledge_features=None,
        knowledge_mask=None,
    ) -> WordStates:
        """Read attributes and knowledge, guided by the words.

        Args:
            text: states of the pieces.
            object_features: [B, m, F] word vectors of the attributes; or
            pixel_values: [B, m, 3, H, W] pictures, whose r cells each are the attributes.
            object_mask: [B, m] real attributes; None = all.
            knowledge_features: [B, s, F] word vectors of the knowledge; None = there is none.
            knowledge_mask: [B, s] real pieces of it; None = all.
        """
        x, word_mask = text.words()  # [B, w, d], [B, w]
        x = self.dropout(x)
        attributes = self.encode_regions(x, pixel_values, object_features, object_mask)  # [B, m r, F]
        if knowledge_features is None:
            knowledge_features = x.new_zeros(len(x), 0, attributes.states.shape[-1])
            knowledge_mask = None
        knowledge = self.encode_regions(x, None, knowledge_features, knowledge_mask)  # [B, s, F]

        a, of_attributes = self.attributes(x, attributes.states, attributes.mask)  # [B, w, d], [B, w, m r]
        k, of_knowledge = self.knowledge(x, knowledge.states, knowledge.mask)  # [B, w, d], [B, w, s]
        gates = {"objects": attributes.by_node(of_attributes), "knowledge": of_knowledge}  # [B, w, m or s]
        gates = {kind: gate for kind, gate in gates.items() if gate.shape[2]}
        return WordStates(torch.cat([x, a, k], dim=-1), word_mask, gates)


class IaikForTokenClassification(MultimodalNerForTokenClassification):
    """IAIK with emission layer and CRF."""

    model_class = IaikModel
