"""What every tagger of this package shares: encoders, word states, emissions, label decoder and outputs.

A system is a `MultimodalNerModel` whose method `fuse` turns the states of the pieces, and whatever else the system
reads, into states of the words; and a `MultimodalNerForTokenClassification` that names it. Letters in shapes: B posts,
n pieces, w words, m visual nodes, r cells of a picture, F visual features, h width of the text encoder.
"""

import inspect
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple, logging

from .batching import own_pieces, text_alone
from .carried_code import carry_code
from .configuration_multimodal_ner import MultimodalNerConfig
from .decoders import LABEL_DECODERS, LinearChainCrf
from .image_encoder import blank_picture, build_encoder, feature_map, load_image_encoder, measure, running_statistics
from .labels import bio_transition_penalty, labels_by_id
from .layers import LetterCaseEmbedding
from .packing import CAN_PACK, can_pack, positions, rows_of
from .pushed_card import add_card

logger = logging.get_logger(__name__)

SMALLEST_PROBABILITY = 1e-30
"""Less is taken for this where a logarithm is needed."""


@dataclass
class MultimodalNerModelOutput(ModelOutput):
    """Word states before tagging.

    Args:
        last_hidden_state: [B, w, width] what the emission layer reads.
        word_mask: [B, w] bool, real words.
        hidden_states: states of the text encoder's layers, each [B, n, h], on request.
        attentions: attentions of the text encoder, each [B, heads, n, n], on request.
        gates: from each kind of node to [B, w, nodes], how much each word takes of each node (0 without an edge), on
            request.
        auxiliary: what `fuse` leaves for the auxiliary task of its tagger, if it has one.
    """

    last_hidden_state: torch.FloatTensor | None = None
    word_mask: torch.BoolTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    gates: dict[str, torch.FloatTensor] | None = None
    auxiliary: dict[str, torch.Tensor] | None = None


@dataclass
class MultimodalNerOutput(ModelOutput):
    """Result of a tagger; the other fields are those of `MultimodalNerModelOutput`.

    Args:
        loss: negative log-likelihood of the labels, given labels.
        logits: [B, w, labels] emissions.
        predictions: [B, w] best labels, -100 = padding.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    predictions: torch.LongTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    gates: dict[str, torch.FloatTensor] | None = None


class Pieces(NamedTuple):
    """The text of posts, piece by piece, as the text encoder leaves it.

    Args:
        states: [B, n, h].
        mask: [B, n] bool, real pieces.
        word_starts: [B, w] index of each word's first piece, -1 = padding; None = every piece of the post is a word.
        context: [B, n] bool, pieces of the context that is read after a post; None = there is none.
    """

    states: torch.Tensor
    mask: torch.Tensor
    word_starts: torch.Tensor | None = None
    context: torch.Tensor | None = None

    def own(self) -> torch.Tensor:
        """The pieces of the posts alone, without their context: [B, n] bool."""
        return own_pieces(self.mask, self.context)

    def words(self, states: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the states [B, w, …] of the words among those of the pieces [B, n, …], and the real words [B, w]."""
        return words_of(self.states if states is None else states, self.own(), self.word_starts)


class Regions(NamedTuple):
    """The cells of all visual nodes of a post, in one row: R = m r regions.

    Args:
        states: [B, R, F].
        mask: [B, R] bool, those of real nodes.
        nodes: [B, m] bool, the real nodes.
    """

    states: torch.Tensor
    mask: torch.Tensor
    nodes: torch.Tensor

    def at_least_one(self) -> "Regions":
        """The same; where there is no node in the whole batch, one region that is not there."""
        if self.states.shape[1]:
            return self
        return Regions(self.states.sum(1, keepdim=True), self.mask.any(1, keepdim=True), self.nodes)

    def by_node(self, shares: torch.Tensor) -> torch.Tensor:
        """Sum the shares [B, w, R] of the regions to those [B, w, m] of their nodes."""
        m = self.nodes.shape[1]
        return shares.unflatten(-1, (m, -1)).sum(-1) if m else shares[..., :0]


class WordStates(NamedTuple):
    """What `fuse` returns.

    Args:
        states: [B, w, width] what the emission layer reads.
        mask: [B, w] bool, real words.
        gates: from each kind of node to [B, w, nodes], how much each word takes of each node.
        auxiliary: tensors for the tagger's `auxiliary_task`, by names of the system.
    """

    states: torch.Tensor
    mask: torch.Tensor
    gates: dict[str, torch.Tensor] | None = None
    auxiliary: dict[str, torch.Tensor] | None = None


class MultimodalNerPreTrainedModel(PreTrainedModel):
    """Loading, saving and initialisation of all models."""

    config: MultimodalNerConfig
    base_model_prefix = "model"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the loss is a mean over posts: the Trainer divides by the accumulation steps
    _supports_sdpa = True
    _supports_flash_attn = True

    @classmethod
    def from_text_vision_pretrained(
        cls,
        text: str | os.PathLike | dict,
        vision: str | os.PathLike | None = None,
        labels: list[str] | None = None,
        **config,
    ):
        """Start from two pretrained encoders; everything else is initialised.

        Args:
            text: id or folder of a transformers text encoder, or the configuration of one that is trained from scratch.
            vision: id or folder of a timm or transformers image encoder (of a model of pictures and texts, such as
                CLIP, its image half is taken); None = no pictures, or features are given.
            labels: the BIO labels, in the order of their ids.
            config: any other setting of the configuration.
        """
        if isinstance(text, dict):
            config["text_config"] = text
        else:
            text_model = AutoModel.from_pretrained(text, dtype=torch.float32)
            config["text_config"] = text_model.config.to_dict()
        if vision is not None:
            vision_model = load_image_encoder(vision)
            config["vision_config"] = vision_model.config.to_dict()
            config["object_feature_size"] = measure(vision_model)[0]
        if labels is not None:
            config["id2label"] = dict(enumerate(labels))
            config["label2id"] = {label: i for i, label in enumerate(labels)}
        for name, source in {"text_config": text, "vision_config": vision}.items():
            if isinstance(config.get(name), dict):
                config[name] = config[name] | {"_name_or_path": _public_name(source)}
        model = cls(cls.config_class(**config))
        if not isinstance(text, dict):
            _copy_weights(text_model, model.base_model.text_model, text)
        if vision is not None:
            _copy_weights(vision_model, model.base_model.vision_model, vision)
        return model

    def get_input_embeddings(self):
        return self.base_model.text_model.get_input_embeddings()

    def set_input_embeddings(self, value):
        self.base_model.text_model.set_input_embeddings(value)

    def train(self, mode: bool = True):
        """Switch to training mode; a frozen encoder, and the batch norms if so configured, stay in evaluation mode."""
        super().train(mode)
        text_model = getattr(self.base_model, "text_model", None)
        vision_model = getattr(self.base_model, "vision_model", None)
        if text_model is not None and not self.config.finetune_text:
            text_model.eval()
        if vision_model is not None and not self.config.finetune_cnn:
            vision_model.eval()
        if vision_model is not None and self.config.freeze_bn:
            for module in vision_model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs):
        """Save as every transformers model, with code that the Auto classes find without this package."""
        base = self.base_model if isinstance(self.base_model, MultimodalNerModel) else self
        classes = {"AutoConfig": type(self.config), "AutoModel": type(base)}
        if base.head_class is not None:
            classes["AutoModelForTokenClassification"] = base.head_class
        self.config.auto_map = {
            auto_class: f"{own.__module__.split('.')[-1]}.{own.__name__}" for auto_class, own in classes.items()
        }
        super().save_pretrained(save_directory, **kwargs)
        carry_code(save_directory)

    def push_to_hub(self, repo_id: str, **kwargs):
        """Push as every transformers model; a repository without a card gets one first."""
        add_card(repo_id, self.name_or_path, kwargs.get("private"), kwargs.get("token"))
        return super().push_to_hub(repo_id, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, LetterCaseEmbedding):
            init.zeros_(module.weight)
        elif isinstance(module, LinearChainCrf):
            for parameter in module.parameters():
                init.uniform_(parameter, -0.1, 0.1)
        else:
            super()._init_weights(module)


class MultimodalNerModel(MultimodalNerPreTrainedModel):
    """Text encoder, image encoder (where there is one) and the fusion of a system.

    A subclass builds its layers after `super().__init__(config)`, sets `output_size`, the width of its word states, and
    implements `fuse`.
    """

    head_class: ClassVar[type | None] = None  # the tagger on top; set where that is defined
    averages_cells: bool = False  # whether `fuse` reads nothing but the mean of the cells of a node
    output_size: int

    def __init__(self, config: MultimodalNerConfig):
        super().__init__(config)
        self.text_model = build_encoder(config.text_config).requires_grad_(config.finetune_text)
        self.letter_case = None
        if config.letter_case:
            self.letter_case = LetterCaseEmbedding(self.text_model.get_input_embeddings().embedding_dim)
        self.vision_model = None
        if config.vision_config is not None:
            self.vision_model = build_encoder(config.vision_config).requires_grad_(config.finetune_cnn)
            for name in measure(self.vision_model)[1] if config.finetune_cnn else ():
                self.vision_model.get_parameter(name).requires_grad_(False)  # no feature depends on it

    def fuse(self, text: Pieces) -> WordStates:
        """Turn the states of the pieces into states of the words; to be implemented by each system.

        Args:
            text: what the text encoder says. Further arguments are the tensors that the system reads, all optional,
                by their names in a batch.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement fuse.")

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        word_starts: torch.LongTensor | None = None,
        context_mask: torch.BoolTensor | None = None,
        output_gates: bool = False,
        **inputs,
    ) -> MultimodalNerModelOutput:
        """Encode the text, then fuse.

        Args:
            input_ids, attention_mask: [B, n] pieces.
            token_type_ids: [B, n] segments; passed over by a text encoder that knows no two.
            word_starts: [B, w] index of each word's first piece, -1 = padding; None = every piece is a word.
            context_mask: [B, n] bool, pieces of the context; None = there is none.
            output_gates: return the gates.
            inputs: what `fuse` reads, such as `pixel_values`; the rest is for the text encoder, e.g. output_attentions.

        Raises:
            ValueError: the letter case of words is read and not told, or told and not read.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if token_type_ids is not None and getattr(self.config.text_config, "type_vocab_size", 0) > 1:
            inputs["token_type_ids"] = token_type_ids
        told = inputs.get("letter_case") is not None
        if told != self.config.letter_case:
            raise ValueError(
                f"This model has letter_case={self.config.letter_case}, but the batch has {'a' if told else 'no'} "
                "letter_case: call tell_letter_case(tokenizer) for a model that reads it, and for no other."
            )
        nodes = {name: inputs.pop(name) for name in self.fused_inputs() if name in inputs}
        text = self.encode_text(input_ids, attention_mask, **inputs)
        words = self.fuse(Pieces(text.last_hidden_state, attention_mask.bool(), word_starts, context_mask), **nodes)
        return MultimodalNerModelOutput(
            last_hidden_state=words.states,
            word_mask=words.mask,
            hidden_states=text.hidden_states,
            attentions=text.attentions,
            gates=words.gates if output_gates else None,
            auxiliary=words.auxiliary,
        )

    @property
    def counts_padding(self) -> bool:
        """Whether the text encoder numbers places from the first, be that padding, as BERT does and RoBERTa doesn't."""
        embeddings = getattr(getattr(self.text_model, "embeddings", None), "position_embeddings", None)
        takes_them = "position_ids" in inspect.signature(self.text_model.forward).parameters
        return takes_them and isinstance(embeddings, nn.Embedding) and embeddings.padding_idx is None

    def max_pieces(self, picture_size: Sequence[int] | None = None) -> int:
        """How many pieces of a post the text encoder has positions for.

        Args:
            picture_size: height and width of the pictures beside them; None = there are none.
        """
        positions = getattr(self.config.text_config, "max_position_embeddings", None) or 512
        embeddings = getattr(getattr(self.text_model, "embeddings", None), "position_embeddings", None)
        padding = getattr(embeddings, "padding_idx", None)  # RoBERTa counts from the place after it
        return positions if padding is None else positions - padding - 1

    @classmethod
    def fused_inputs(cls) -> list[str]:
        """Names of the tensors that the system reads besides the text."""
        return [name for name in inspect.signature(cls.fuse).parameters][2:]

    def encode_text(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, letter_case: torch.Tensor | None = None, **kwargs
    ) -> ModelOutput:
        """Run the text encoder on pieces [B, n]; in training with word dropout.

        Args:
            letter_case: [B, n] that of the pieces' words, for a model that is told (see `letter_cases`).
            kwargs: for the encoder.
        """
        embeds = letter_case is not None or bool(self.training and self.config.word_dropout)
        if self.counts_padding:  # else padding on the left would move the text
            kwargs.setdefault("position_ids", (attention_mask.long().cumsum(1) - 1).clamp(min=0))
        mask = attention_mask.bool()
        rows = rows_of(mask) if can_pack(self.text_model, input_ids, mask, kwargs) else None
        if (rows is not None or embeds) and self.text_model.config.model_type in CAN_PACK:
            kwargs.setdefault("position_ids", positions(self.text_model.config, input_ids))
        if rows is not None:
            kwargs.setdefault("token_type_ids", torch.zeros_like(input_ids))
            letter_case = None if letter_case is None else rows.pack(letter_case)
            kwargs = {name: rows.pack(tensor.expand_as(input_ids)) for name, tensor in kwargs.items()}
            input_ids, attention_mask = rows.pack(input_ids), rows.attention_mask
        if embeds:
            embeddings = self.embed_pieces(input_ids, letter_case)
            outputs = self.text_model(inputs_embeds=embeddings, attention_mask=attention_mask, **kwargs)
        else:
            outputs = self.text_model(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        if rows is not None:
            outputs.last_hidden_state = rows.unpack(outputs.last_hidden_state, mask)
        return outputs

    def embed_pieces(self, input_ids: torch.Tensor, letter_case: torch.Tensor | None = None) -> torch.Tensor:
        """Return the embeddings of pieces [B, n], of the width that the text encoder has there; with word dropout."""
        embeddings = self.text_model.get_input_embeddings()(input_ids)
        if self.training and self.config.word_dropout:
            kept = torch.rand(input_ids.shape, device=input_ids.device) >= self.config.word_dropout  # [B, n]
            embeddings = embeddings * kept[..., None]
        return embeddings if letter_case is None else embeddings + self.letter_case(letter_case)

    def encode_objects(
        self,
        H: torch.Tensor,
        pixel_values: torch.Tensor | None,
        object_features: torch.Tensor | None,
        object_mask: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the cells [B, m, r, F] of each visual node, 0 where there is none, and the real nodes [B, m].

        Args:
            H: states of the text, of the type that is wanted.
            pixel_values: [B, m, 3, H, W] pictures of the nodes; or
            object_features: [B, m, F] their features, which count as one cell each, or [B, m, r, F] their cells.
                Without either, m = 0.
            object_mask: [B, m] real nodes; None = all.
        """
        if object_features is None and pixel_values is None:
            object_features = H.new_zeros(len(H), 0, self.config.object_feature_size)
            object_mask = None
            if self.training and self.vision_model is not None and self.config.finetune_cnn:
                pixel_values = H.new_zeros(len(H), 0, 1, 1, 1)  # gradients of 0, not none
                object_features = None
        nodes = pixel_values if object_features is None else object_features
        if object_mask is None:
            object_mask = torch.ones(nodes.shape[:2], dtype=torch.bool, device=nodes.device)
        object_mask = object_mask.bool()
        if object_features is None:
            return self.encode_pictures(pixel_values, object_mask).to(H.dtype), object_mask
        width, F = object_features.shape[-1], self.config.object_feature_size
        if width != F and object_features.shape[1]:
            raise ValueError(f"Nodes have {width} features, this model reads {F}: make them as its own were.")
        cells = object_features if object_features.ndim == 4 else object_features[:, :, None]  # [B, m, r, F]
        return cells.masked_fill(~object_mask[..., None, None], 0).to(H.dtype), object_mask

    def encode_regions(
        self,
        H: torch.Tensor,
        pixel_values: torch.Tensor | None,
        object_features: torch.Tensor | None,
        object_mask: torch.Tensor | None,
    ) -> Regions:
        """Return the cells of `encode_objects`, which takes the same, as regions of a post, whatever their node."""
        cells, nodes = self.encode_objects(H, pixel_values, object_features, object_mask)  # [B, m, r, F], [B, m]
        return Regions(cells.flatten(1, 2), nodes.repeat_interleave(cells.shape[2], 1), nodes)

    def encode_pictures(self, pixel_values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Turn pictures [B, m, 3, H, W] into cells [B, m, r, F]; those whose mask [B, m] is false are not looked at."""
        if self.vision_model is None:
            raise ValueError(
                "This model has no image encoder (vision_config is null): give object_features instead of "
                "pixel_values, or start with from_text_vision_pretrained(text, vision)."
            )
        learns_statistics = self.vision_model.training and not self.config.freeze_bn
        if torch.compiler.is_compiling() and not learns_statistics:  # a graph needs shapes that no mask decides
            pictures = pixel_values.masked_fill(~mask[..., None, None, None], 0).flatten(0, 1)
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.finetune_cnn):
                cells = feature_map(self.vision_model, pictures.to(self.vision_model.dtype)).unflatten(0, mask.shape)
            return cells.masked_fill(~mask[..., None, None], 0)
        trained = self.training and self.config.finetune_cnn and torch.is_grad_enabled()
        pictures = pixel_values[mask].to(self.vision_model.dtype)  # [real, 3, H, W]
        if not len(pictures) and not trained:
            return pixel_values.new_zeros(*mask.shape, 1, self.config.object_feature_size)
        if not len(pictures):  # every parameter needs a gradient, be it 0: other processes may have pictures
            with running_statistics(self.vision_model):
                cells = feature_map(self.vision_model, blank_picture(self.config.vision_config, pictures))
            return cells.new_zeros(*mask.shape, *cells.shape[1:]) + 0 * cells.mean()
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.finetune_cnn):
            if len(pictures) == 1:  # of one picture a batch norm learns nothing sensible
                with running_statistics(self.vision_model):
                    cells = feature_map(self.vision_model, pictures)
            else:
                cells = feature_map(self.vision_model, pictures)  # [real, r, F]
        states = cells.new_zeros(*mask.shape, *cells.shape[1:])
        return states.masked_scatter(mask[..., None, None], cells)


class LabelHead(NamedTuple):
    """What scores labels: an emission layer and a decoder with a row for each of them."""

    labels: list[str]
    classifier: nn.Linear
    label_decoder: nn.Module


class MultimodalNerForTokenClassification(MultimodalNerPreTrainedModel):
    """A model with an emission layer and a label decoder on its word states.

    A subclass names its `model_class`, and that is all, unless it learns an auxiliary task too: that one builds its
    layers after `super().__init__(config)`, calls `post_init` and overrides `auxiliary_task`; and `label_heads`, where
    the task has labels that depend on those of the model.
    """

    model_class: ClassVar[type[MultimodalNerModel]]
    _keep_in_fp32_modules_strict = ["label_decoder"]

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        cls.config_class = cls.model_class.config_class
        cls.model_class.head_class = cls

    def __init__(self, config: MultimodalNerConfig):
        super().__init__(config)
        self.model = self.model_class(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(self.model.output_size, config.num_labels)
        self.label_decoder = LABEL_DECODERS[config.label_decoder](config.num_labels)
        self.post_init()

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs):
        """Save as every transformers model, with the code of the pipeline "multimodal-ner" for `trust_remote_code`."""
        from .pipeline_multimodal_ner import MultimodalNerPipeline as pipeline  # this line is why its code is copied

        implementation = f"{pipeline.__module__.split('.')[-1]}.{pipeline.__name__}"
        self.config.custom_pipelines = {
            "multimodal-ner": {"impl": implementation, "pt": ["AutoModelForTokenClassification"]}
        }
        super().save_pretrained(save_directory, **kwargs)

    def label_heads(self) -> list[LabelHead]:
        """All that has a row for each label, so that a trained model can go on with others."""
        return [LabelHead(labels_by_id(self.config.id2label), self.classifier, self.label_decoder)]

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        word_starts: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
        return_predictions: bool | None = None,
        **inputs,
    ) -> MultimodalNerOutput:
        """Tag words.

        Args:
            input_ids, attention_mask: [B, n] pieces.
            word_starts: [B, w] index of each word's first piece, -1 = padding; None = every piece is a word.
            labels: [B, w] gold label ids, -100 = padding; gives `loss`.
            return_predictions: decode; default: in evaluation mode.
            inputs: everything else that the system reads; see `fuse` of its model.
        """
        by_pieces = self.config.subword_labels == "x"
        if word_starts is None and not by_pieces and not self.training:
            logger.warning_once(
                "No word_starts: every piece is labelled as if it were a word. To tag posts use "
                'pipeline("multimodal-ner", model=…); "token-classification" knows neither words nor pictures.'
            )
        starts = None if by_pieces else word_starts
        outputs = self.model(input_ids=input_ids, attention_mask=attention_mask, word_starts=starts, **inputs)
        emissions = self.classifier(self.dropout(outputs.last_hidden_state)).float()  # [B, w, labels]
        mask = outputs.word_mask  # [B, w]
        gates = outputs.gates  # [B, w, nodes] of each kind
        if by_pieces and labels is not None and word_starts is not None:
            labels = self.labels_of_pieces(labels, word_starts, mask)

        labelled = None if labels is None else mask & (labels != -100)
        emissions, auxiliary_loss = self.auxiliary_task(outputs, emissions, labels, labelled)
        loss = predictions = None
        if labels is not None:
            losses = self.label_decoder.loss(emissions, labels, labelled) + auxiliary_loss  # [B]
            if self.training and self.config.cross_view_weight:
                text = {"input_ids": input_ids, "attention_mask": attention_mask, "word_starts": starts}
                losses = losses + self.cross_view_loss(emissions, labels, labelled, text | inputs)
            loss = losses.sum()
            if self.config.crf_reduction == "mean":
                loss = loss / labelled.any(1).sum().clamp(min=1)
        if return_predictions or (return_predictions is None and not self.training):
            predictions = self.best_labels(emissions, mask)  # [B, w]

        if by_pieces and word_starts is not None:  # hand out what belongs to the words, as in every other mode
            emissions, _ = words_of(emissions, mask, word_starts)
            if predictions is not None:
                predictions, real = words_of(predictions[..., None], mask, word_starts)
                predictions = predictions[..., 0].masked_fill(~real, -100)
            if gates is not None:
                gates = {kind: words_of(gate, mask, word_starts)[0] for kind, gate in gates.items()}
        return MultimodalNerOutput(
            loss=loss,
            logits=emissions,
            predictions=predictions,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            gates=gates,
        )

    def cross_view_loss(
        self, emissions: torch.Tensor, labels: torch.Tensor, labelled: torch.Tensor, inputs: dict[str, torch.Tensor]
    ) -> torch.Tensor | float:
        """Read the posts a second time, without context, picture and neighbours (Wang et al., NAACL 2022).

        Args:
            emissions: [B, w, labels] of the first time.
            labels: [B, w] gold label ids.
            labelled: [B, w] which of them are real.
            inputs: what was read the first time.

        Returns:
            For each post [B], 0 where there is nothing to leave out: the negative log-likelihood of its labels at the
            second reading, and `cross_view_weight` times KL(p || q), summed over its words, of the marginals p of the
            first reading and q of the second. p is the teacher, and has no gradient: who sees more is not to learn from
            who sees less. In this direction q must be likely wherever p is, so that the second reading learns to doubt
            what only the picture can tell, instead of choosing one of the possible labels.
        """
        view = text_alone(inputs, self.model.fused_inputs())
        if view is None:
            return 0.0
        post, lost = view
        outputs = self.model(**post)
        alone = self.classifier(self.dropout(outputs.last_hidden_state)).float()  # [B, w, labels]
        alone, _ = self.auxiliary_task(outputs, alone, None, None)
        steps = alone.shape[1]  # of pieces there may be fewer
        labels, labelled = labels[:, :steps], labelled[:, :steps]
        p = self.label_decoder.marginals(emissions[:, :steps], labelled)  # [B, w, labels]
        q = self.label_decoder.marginals(alone, labelled, differentiable=True).clamp(min=SMALLEST_PROBABILITY)
        divergence = (torch.xlogy(p, p) - p * q.log()).sum((1, 2))  # [B]
        likelihood = self.label_decoder.loss(alone, labels, labelled)
        return (likelihood + self.config.cross_view_weight * divergence) * lost

    def best_labels(self, emissions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Decode emissions [B, w, labels] of real words [B, w]; returns label ids [B, w], -100 = padding."""
        penalty = bio_transition_penalty(self.config.id2label) if self.config.constrain_bio else None
        return self.label_decoder.decode(emissions, mask, penalty)

    def auxiliary_task(
        self,
        words: MultimodalNerModelOutput,
        emissions: torch.Tensor,
        labels: torch.Tensor | None,
        labelled: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor | float]:
        """Learn and use something besides the labels; to be overridden by systems that do.

        Args:
            words: what the model says, with `auxiliary`.
            emissions: [B, w, labels].
            labels: [B, w] gold label ids (`subword_labels="x"`: of the pieces), or None.
            labelled: [B, w] which of them are real, or None.

        Returns:
            The emissions that are decoded, and a loss [B] that is added to that of the labels.
        """
        return emissions, 0.0

    def labels_of_pieces(
        self, labels: torch.Tensor, word_starts: torch.Tensor, piece_mask: torch.Tensor
    ) -> torch.Tensor:
        """Spread word labels [B, w] over the pieces [B, n]: X on continuations, [CLS] and [SEP] at the ends."""
        label2id = self.config.label2id
        pieces = torch.full_like(piece_mask, label2id["X"], dtype=torch.long)
        position = torch.arange(piece_mask.shape[1], device=piece_mask.device)
        last = (position * piece_mask).amax(1, keepdim=True)
        pieces[position.expand_as(pieces) == last] = label2id["[SEP]"]
        first = torch.where(piece_mask, position, piece_mask.shape[1]).amin(1, keepdim=True)
        pieces[position.expand_as(pieces) == first] = label2id["[CLS]"]
        rows, words = torch.where(word_starts >= 0)
        pieces[rows, word_starts[rows, words]] = labels[rows, words]
        return pieces.masked_fill(~piece_mask, -100)


def words_of(
    states: torch.Tensor, attention_mask: torch.Tensor, word_starts: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return states [B, w, …] and mask [B, w] of the words' first pieces; of all pieces where no words are given."""
    if word_starts is None:
        return states, attention_mask
    index = word_starts.clamp(min=0)[..., None].expand(-1, -1, states.shape[-1])  # [B, w, …]
    return states.gather(1, index), word_starts >= 0


def _public_name(source: str | os.PathLike | dict | None) -> str:
    """What a model says of where an encoder comes from: its Hub id; "./" and the name of a folder, whose path is
    nobody's business; "" = trained from scratch."""
    if source is None or isinstance(source, dict):
        return ""
    return f"./{Path(source).resolve().name}" if os.path.isdir(source) else str(source)


def _copy_weights(source: nn.Module, target: nn.Module, name: str | os.PathLike) -> None:
    missing, _ = target.load_state_dict(source.state_dict(), strict=False)
    if missing:
        raise ValueError(f"{name} lacks the weights {', '.join(missing[:3])}{' …' if len(missing) > 3 else ''}.")
