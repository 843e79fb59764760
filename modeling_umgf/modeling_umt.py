"""UMT: Improving Multimodal Named Entity Recognition via Entity Span Detection with Unified Multimodal Transformer.

Yu et al., ACL 2020. Two more transformer layers read the text: one for the labels, one for an auxiliary task, which
finds where names begin and end, whatever their type. Three cross-modal layers exchange words and regions of the
picture, a gate decides how much of the picture each word takes, and what the auxiliary task says is added to the
emissions.

Letters as in the paper: H text, V regions of the picture, A words that saw the picture, B regions that saw the words,
C words that saw these, g visual gate; B posts, n pieces, w words, m pictures, r regions of all pictures of a post,
d width.
"""

import torch
from torch import nn

from .configuration_umt import UmtConfig
from .decoders import LABEL_DECODERS
from .labels import labels_by_id
from .layers import Gate, TransformerLayer
from .modeling_multimodal_ner import (
    LabelHead,
    MultimodalNerForTokenClassification,
    MultimodalNerModel,
    Pieces,
    WordStates,
)


class BertLayer(TransformerLayer):
    """A layer as those of BERT, whose keys may be another modality."""

    def __init__(self, config: UmtConfig):
        super().__init__(config.hidden_size, config.num_heads, config.d_ff, config.dropout)
        self.feed_forward[1] = nn.GELU()


class UmtModel(MultimodalNerModel):
    """Text encoder, frozen image encoder, transformer layers for both tasks and the cross-modal ones.

    Without a picture the cross-modal layers add nothing to the text, and the gate is closed.
    """

    config: UmtConfig

    def __init__(self, config: UmtConfig):
        super().__init__(config)
        d = config.hidden_size
        self.output_size = 2 * d
        self.dropout = nn.Dropout(config.dropout)
        self.auxiliary_layer = BertLayer(config)  # TL_1
        self.main_layer = BertLayer(config)  # TL_2
        self.projection_of_words = nn.Linear(config.object_feature_size, d)
        self.projection_of_regions = nn.Linear(config.object_feature_size, d)
        self.words_see_regions = BertLayer(config)  # CMT_1
        self.regions_see_words = BertLayer(config)  # CMT_2
        self.words_see_seeing_regions = BertLayer(config)  # CMT_3
        self.gate = Gate(d)
        self.post_init()

    def fuse(self, text: Pieces, pixel_values=None, object_features=None, object_mask=None) -> WordStates:
        """Fuse words and regions.

        Args:
            text: states H [B, n, d] of the pieces.
            pixel_values: [B, m, 3, H, W] the posts' pictures, usually one; or
            object_features: [B, m, F] features of their regions.
            object_mask: [B, m] which are there; None = all.
        """
        H = self.dropout(text.states)
        H_aux = self.auxiliary_layer(H, H, text.mask)  # [B, n, d]
        H_m = self.main_layer(H, H, text.mask)  # [B, n, d]

        regions = self.encode_regions(H, pixel_values, object_features, object_mask)  # [B, r, F]
        mask = regions.mask  # [B, r]
        V_1 = self.projection_of_words(regions.states)  # [B, r, d]
        V_2 = self.projection_of_regions(regions.states)  # [B, r, d]

        A = self.words_see_regions(H_m, V_1, mask)  # [B, n, d]
        B = self.regions_see_words(V_2, H_m, text.mask)  # [B, r, d]
        C = self.words_see_seeing_regions(H_m, B, mask)  # [B, n, d]
        g = self.gate(C, A) * mask.any(1)[:, None, None]  # [B, n, d]
        F = torch.cat([C, g * A], dim=-1)  # [B, n, 2d]

        shares = self.words_see_regions.attention.shares(H_m, V_1, mask)  # [B, n, r]
        gates, _ = text.words(g.mean(-1, keepdim=True) * regions.by_node(shares))  # [B, w, m]
        x, word_mask = text.words(F)
        return WordStates(x, word_mask, {"objects": gates}, {"span_states": text.words(H_aux)[0]})


class SpanDetection(nn.Module):
    """The auxiliary task: labels without their types, such as O, B, I, with emissions and a decoder of their own."""

    def __init__(self, config: UmtConfig):
        super().__init__()
        labels = labels_by_id(config.id2label)
        self.span_label = [label[0] if label[:2] in ("B-", "I-") else label for label in labels]  # of each label
        self.span_labels = list(dict.fromkeys(self.span_label))
        self.classifier = nn.Linear(config.hidden_size, len(self.span_labels))
        self.label_decoder = LABEL_DECODERS[config.label_decoder](len(self.span_labels))

    def conversion(self, like: torch.Tensor) -> torch.Tensor:
        """The conversion matrix [S, L]: what a span label says of each label, evenly among all types."""
        shares = [
            [(own == span_label) / self.span_label.count(span_label) for own in self.span_label]
            for span_label in self.span_labels
        ]
        return like.new_tensor(shares)

    def span_ids(self, labels: torch.Tensor) -> torch.Tensor:
        """The ids of span labels [B, w] that belong to those of labels [B, w]; what is negative gets any."""
        ids = [self.span_labels.index(span_label) for span_label in self.span_label]
        return labels.new_tensor(ids)[labels.clamp(min=0)]


class UmtForTokenClassification(MultimodalNerForTokenClassification):
    """UMT with emission layer and CRF, and another pair of them for the detection of spans."""

    model_class = UmtModel

    def __init__(self, config: UmtConfig):
        super().__init__(config)
        self.span_detection = SpanDetection(config)
        self.post_init()

    def label_heads(self) -> list[LabelHead]:
        """That of the labels and that of the spans."""
        spans = self.span_detection
        return [*super().label_heads(), LabelHead(spans.span_labels, spans.classifier, spans.label_decoder)]

    def auxiliary_task(self, words, emissions, labels, labelled):
        """Add what the detection of spans says: α E + (1 - α) E_aux T; and its loss, weighted."""
        E_aux = self.span_detection.classifier(self.dropout(words.auxiliary["span_states"])).float()  # [B, w, S]
        T = self.span_detection.conversion(E_aux)  # [S, L]
        alpha = self.config.alpha
        emissions = alpha * emissions + (1 - alpha) * E_aux @ T  # [B, w, L]
        if labels is None:
            return emissions, 0.0
        loss = self.span_detection.label_decoder.loss(E_aux, self.span_detection.span_ids(labels), labelled)
        return emissions, self.config.auxiliary_weight * loss
