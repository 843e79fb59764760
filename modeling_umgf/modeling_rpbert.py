"""RpBERT: A Text-image Relation Propagation-based BERT Model for Multimodal NER.

Sun et al., AAAI 2021. The text encoder reads pieces and regions of the picture as one sequence, twice: the first time
its first state says how much the picture adds to the text, r; the second time the regions are multiplied by r. A
bidirectional LSTM follows. Where posts say whether their picture adds to the text, r also learns from that.

The release stacks Flair embeddings on the states of the words and takes the mean of a word's pieces; here it is the
text encoder alone, and the first piece, as in all systems.

Letters: E embeddings of the pieces, V regions of the picture, H states of the encoder, r relation; B posts, n pieces,
w words, m pictures, v regions of all pictures of a post, e width of the embeddings, h of the states.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers.modeling_outputs import BaseModelOutput

from .configuration_rpbert import RpbertConfig
from .image_encoder import feature_map, running_statistics
from .modeling_multimodal_ner import MultimodalNerForTokenClassification, MultimodalNerModel, Pieces, WordStates
from .recurrent_layers import BiLstm, take


class RpbertModel(MultimodalNerModel):
    """A text encoder that reads the picture too, an image encoder and an LSTM.

    Without a picture the text encoder reads the text alone.
    """

    config: RpbertConfig

    def __init__(self, config: RpbertConfig):
        super().__init__(config)
        h = config.text_config.hidden_size
        self.projection = nn.Linear(config.object_feature_size, self.get_input_embeddings().embedding_dim)
        self.relation = nn.Linear(h, 2)
        widths = [h, *[2 * config.lstm_size] * config.lstm_layers]
        self.lstms = nn.ModuleList(BiLstm(own, 2 * config.lstm_size) for own in widths[:-1])
        self.output_size = widths[-1]
        self.post_init()

    def encode_text(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, letter_case: torch.Tensor | None = None, **kwargs
    ) -> BaseModelOutput:
        """Only look up the embeddings of the pieces: `fuse` lets the encoder read them next to the picture."""
        if given := [name for name, value in kwargs.items() if value is not None and value is not False]:
            raise ValueError(f"RpBERT's text encoder reads text and picture at once: it takes no {', '.join(given)}.")
        return BaseModelOutput(last_hidden_state=self.embed_pieces(input_ids, letter_case))

    def fuse(
        self,
        text: Pieces,
        pixel_values=None,
        object_features=None,
        object_mask=None,
        picture_adds=None,
        token_type_ids=None,
    ) -> WordStates:
        """Judge the picture, then read the text with as much of it as it adds.

        Args:
            text: embeddings E [B, n, e] of the pieces.
            pixel_values: [B, m, 3, H, W] the posts' pictures, usually one; or
            object_features: [B, m, F] features of their regions.
            object_mask: [B, m] which are there; None = all.
            picture_adds: [B] 1 = the picture adds to the text, 0 = it doesn't, -100 = unknown.
            token_type_ids: [B, n] segments of the pieces; the regions belong to the second one.
        """
        E = text.states
        regions = self.encode_regions(E, pixel_values, object_features, object_mask).at_least_one()
        V, mask = self.projection(regions.states), regions.mask  # [B, v, e], [B, v]

        cls = text.mask.long().argmax(1, keepdim=True)  # [B, 1], the first piece
        relation = self.relation(take(self.encode(text, V, mask, token_type_ids), cls))[:, 0]  # [B, 2]
        r = relation.softmax(-1)[:, 1, None, None]  # [B, 1, 1]
        H = self.encode(text, r * V, mask, token_type_ids)  # [B, n, h]

        x, word_mask = text.words(H)  # [B, w, h], [B, w]
        for lstm in self.lstms:
            x, _ = lstm(x, word_mask)  # [B, w, 2 lstm_size]
        gates = r * (word_mask[:, :, None] & regions.nodes[:, None])  # [B, w, m]
        auxiliary = None
        if picture_adds is not None:
            known = picture_adds.masked_fill(~mask.any(1), -100)
            auxiliary = {"relation_loss": cross_entropy(relation.float(), known, reduction="none")}
        return WordStates(x, word_mask, {"objects": gates}, auxiliary)

    def max_pieces(self, picture_size: Sequence[int] | None = None) -> int:
        """How many pieces there are positions for beside the regions of one picture; see the base class."""
        room = super().max_pieces()
        if picture_size is None or self.vision_model is None:
            return room
        like = next(self.vision_model.parameters())
        with torch.no_grad(), running_statistics(self.vision_model):
            pictures = like.new_zeros(1, getattr(self.config.vision_config, "num_channels", 3), *picture_size)
            return room - feature_map(self.vision_model, pictures).shape[1]

    def encode(
        self, text: Pieces, V: torch.Tensor, mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Run the text encoder on the real pieces of a text followed by the real regions among V [B, v, e].

        Where there are not enough positions for all, the end of the context is not read.

        Returns:
            The states of the pieces [B, n, h].

        Raises:
            ValueError: pieces of the post and regions are more than the text encoder has positions.
        """
        E = text.states
        n, v = E.shape[1], V.shape[1]
        limited = getattr(self.config.text_config, "max_position_embeddings", None)
        positions = super().max_pieces() if limited else n + v
        text_mask = text.mask
        if n + v > positions:
            room = positions - mask.sum(1)  # [B], beside the regions of each post
            pieces = text.own().sum(1)  # [B]
            if (pieces > room).any():
                worst = int((pieces - room).argmax())
                raise ValueError(
                    f"{pieces[worst]} pieces and {positions - room[worst]} regions of the picture are more than the "
                    f"{positions} positions of the text encoder: cut the posts, max_length={room[worst]}, or take an "
                    "image encoder with fewer regions."
                )
            text_mask = text_mask & ((text_mask.cumsum(1) <= room[:, None]) | text.own())
        is_real = torch.cat([text_mask, mask], dim=1)  # [B, n + v]
        order = is_real.long().argsort(dim=1, descending=True, stable=True)  # [B, n + v], the real ones first
        places = order.argsort(dim=1)[:, :n].clamp(max=positions - 1)  # [B, n], of the pieces
        order = order[:, :positions]
        segments = {}
        if getattr(self.config.text_config, "type_vocab_size", 0) > 1:
            types = torch.zeros_like(text_mask, dtype=torch.long) if token_type_ids is None else token_type_ids
            types = torch.cat([types, torch.ones_like(mask, dtype=torch.long)], dim=1)  # [B, n + v]
            segments["token_type_ids"] = types.gather(1, order)
        H = self.text_model(
            inputs_embeds=take(torch.cat([E, V], dim=1), order),
            attention_mask=is_real.gather(1, order).long(),
            **segments,
        ).last_hidden_state
        return take(H, places)


class RpbertForTokenClassification(MultimodalNerForTokenClassification):
    """RpBERT with emission layer and CRF, and the text-image relation where posts tell it."""

    model_class = RpbertModel

    def auxiliary_task(self, words, emissions, labels, labelled):
        """Add the loss of the text-image relation of the posts with a picture of which it is known, weighted."""
        if words.auxiliary is None:
            return emissions, 0.0
        return emissions, self.config.relation_weight * words.auxiliary["relation_loss"]
