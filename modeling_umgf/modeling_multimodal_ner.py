"""What every tagger of this package shares: backbones, word pooling, attention, emissions, CRF and outputs."""

import inspect
import math
import os
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from .configuration_multimodal_ner import MultimodalNerConfig
from .crf import LinearChainCrf
from .labels import bio_transition_penalty


@dataclass
class MultimodalNerModelOutput(ModelOutput):
    """Word states before tagging.

    Args:
        last_hidden_state: [B, w, width] what the emission layer reads.
        word_mask: [B, w] bool, real words.
        hidden_states: states of the text encoder's layers, each [B, n, h], on request.
        attentions: attentions of the text encoder, each [B, heads, n, n], on request.
        gates: for each fusion layer [B, w, m], how far the gate of word i opens for node j (mean over the width;
            0 without an edge), on request.
    """

    last_hidden_state: torch.FloatTensor | None = None
    word_mask: torch.BoolTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    gates: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class MultimodalNerOutput(ModelOutput):
    """Result of a tagger; the other fields are those of `MultimodalNerModelOutput`.

    Args:
        loss: negative log-likelihood of the labels, given labels.
        logits: [B, w, labels] emissions.
        predictions: [B, w] Viterbi labels, -100 = padding.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    predictions: torch.LongTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    gates: tuple[torch.FloatTensor, ...] | None = None


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention in which a query without any valid key gets zeros, not NaN."""

    def __init__(self, width: int, num_heads: int, dropout: float, project_values: bool = True):
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value = nn.Linear(width, width) if project_values else nn.Identity()
        self.output = nn.Linear(width, width) if project_values else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: torch.Tensor, keys: torch.Tensor, key_mask: torch.Tensor) -> torch.Tensor:
        """Attend from queries [B, q, d] to keys [B, k, d] where key_mask [B, k] is true; returns [B, q, d]."""
        q, k, v = (
            states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # [B, heads, q|k, d / heads]
            for states in (self.query(queries), self.key(keys), self.value(keys))
        )
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])  # [B, heads, q, k]
        mask = key_mask[:, None, None, :]
        weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1) * mask
        context = self.dropout(weights).to(v.dtype) @ v  # [B, heads, q, d / heads]
        return self.output(context.transpose(1, 2).flatten(2))


def feature_map(vision_model: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    """Run any transformers or timm image encoder on pictures [N, 3, H, W]; returns its cells, row by row: [N, r, F]."""
    states = vision_model(pixel_values=pictures).last_hidden_state
    if states.ndim == 4:  # convolutional: [N, F, h, w], or [N, h, w, F] in some timm models
        channels_first = states.shape[2] == states.shape[3]
        return states.flatten(2).transpose(1, 2) if channels_first else states.flatten(1, 2)
    cells = math.isqrt(states.shape[1]) ** 2  # transformer: class and register tokens come before the patches
    return states[:, states.shape[1] - cells :]


class MultimodalNerPreTrainedModel(PreTrainedModel):
    """Loading, saving and initialisation of all models, and the two encoders that they share."""

    config: MultimodalNerConfig
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the loss is a mean over sentences: the Trainer divides by the accumulation steps
    _keep_in_fp32_modules_strict = ["crf"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _auto_classes: dict[str, str] = {}  # auto class -> model class of this file, for `trust_remote_code`

    @classmethod
    def from_text_vision_pretrained(
        cls,
        text: str | os.PathLike | dict,
        vision: str | os.PathLike | None = None,
        labels: list[str] | None = None,
        **config,
    ):
        """Start from two pretrained backbones; everything else is initialised.

        Args:
            text: id or folder of a transformers text encoder, or the configuration of one that is trained from scratch.
            vision: id or folder of a timm or transformers image encoder; None = no pictures, or features are given.
            labels: the BIO labels, in the order of their ids.
            config: any other setting of the configuration.
        """
        if isinstance(text, dict):
            config["text_config"] = text
        else:
            text_model = AutoModel.from_pretrained(text, dtype=torch.float32)
            config["text_config"] = text_model.config.to_dict()
        if vision is not None:
            vision_model = AutoModel.from_pretrained(vision, dtype=torch.float32).eval()
            config["vision_config"] = vision_model.config.to_dict()
            with torch.no_grad():
                config["object_feature_size"] = feature_map(vision_model, torch.zeros(1, 3, 224, 224)).shape[-1]
        if labels is not None:
            config["id2label"] = dict(enumerate(labels))
            config["label2id"] = {label: i for i, label in enumerate(labels)}
        for name in {"text_config", "vision_config"} & config.keys():  # a folder of this machine is nobody's business
            if isinstance(config[name], dict):
                config[name] = {key: value for key, value in config[name].items() if key != "_name_or_path"}
        model = cls(cls.config_class(**config))
        if not isinstance(text, dict):
            _copy_weights(text_model, model.base_model.text_model, text)
        if vision is not None:
            _copy_weights(vision_model, model.base_model.vision_model, vision)
        return model

    def add_encoders(self) -> None:
        """Build `text_model` and `vision_model` (or None) from the configuration."""
        text_class = AutoModel._model_mapping[type(self.config.text_config)]
        pooling = inspect.signature(text_class.__init__).parameters.get("add_pooling_layer")
        without_pooling = {} if pooling is None else {"add_pooling_layer": False}
        self.text_model = AutoModel.from_config(self.config.text_config, **without_pooling)
        self.text_model.requires_grad_(self.config.finetune_text)
        self.vision_model = None
        if self.config.vision_config is not None:
            self.vision_model = AutoModel.from_config(self.config.vision_config)
            self.vision_model.requires_grad_(self.config.finetune_cnn)

    def get_input_embeddings(self):
        return self.base_model.text_model.get_input_embeddings()

    def set_input_embeddings(self, value):
        self.base_model.text_model.set_input_embeddings(value)

    def encode_text(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **kwargs) -> ModelOutput:
        """Run the text encoder on pieces [B, n]; in training with word dropout."""
        if self.training and self.config.word_dropout:
            kept = torch.rand(input_ids.shape, device=input_ids.device) >= self.config.word_dropout  # [B, n]
            embeddings = self.text_model.get_input_embeddings()(input_ids) * kept[..., None]
            return self.text_model(inputs_embeds=embeddings, attention_mask=attention_mask, **kwargs)
        return self.text_model(input_ids=input_ids, attention_mask=attention_mask, **kwargs)

    def encode_pictures(self, pixel_values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Turn pictures [..., 3, H, W] into cells [..., r, F]; pictures whose mask [...] is false are not looked at."""
        if self.vision_model is None:
            raise ValueError(
                "This model has no image encoder (vision_config is null): give object_features instead of "
                "pixel_values, or start with from_text_vision_pretrained(text, vision)."
            )
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.finetune_cnn):
            cells = feature_map(self.vision_model, pixel_values[mask].to(self.vision_model.dtype))  # [real, r, F]
        states = cells.new_zeros(*mask.shape, *cells.shape[1:])
        return states.masked_scatter(mask[..., None, None], cells)

    def train(self, mode: bool = True):
        """Switch to training mode; a frozen encoder, and the batch norms if so configured, stay in evaluation mode."""
        super().train(mode)
        encoders = {"text_model": self.config.finetune_text, "vision_model": self.config.finetune_cnn}
        for name, finetuned in encoders.items():
            encoder = getattr(self.base_model, name, None)
            if encoder is not None and not finetuned:
                encoder.eval()
            elif name == "vision_model" and encoder is not None and self.config.freeze_bn:
                for module in encoder.modules():
                    if isinstance(module, nn.modules.batchnorm._BatchNorm):
                        module.eval()
        return self

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs):
        """Save as every transformers model, with code that AutoModel and all its heads find without this package."""
        module = type(self).__module__.split(".")[-1]
        configuration = module.replace("modeling", "configuration")
        self.config.auto_map = {"AutoConfig": f"{configuration}.{type(self.config).__name__}"} | {
            auto_class: f"{module}.{name}" for auto_class, name in self._auto_classes.items()
        }
        super().save_pretrained(save_directory, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, LinearChainCrf):
            for parameter in module.parameters():
                init.uniform_(parameter, -0.1, 0.1)
        else:
            super()._init_weights(module)


class MultimodalNerForTokenClassification(MultimodalNerPreTrainedModel):
    """A base model with an emission layer and a CRF on its word states (eq. 9-11 of the UMGF paper)."""

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs):
        """Save as every transformers model, with the code of the pipeline "multimodal-ner" for `trust_remote_code`."""
        from .pipeline_multimodal_ner import MultimodalNerPipeline as pipeline  # this line is why its code is copied

        implementation = f"{pipeline.__module__.split('.')[-1]}.{pipeline.__name__}"
        self.config.custom_pipelines = {
            "multimodal-ner": {"impl": implementation, "pt": ["AutoModelForTokenClassification"]}
        }
        super().save_pretrained(save_directory, **kwargs)

    def add_tagging_head(self, width: int) -> None:
        """Build the emission layer and the CRF for word states of this width."""
        self.dropout = nn.Dropout(self.config.classifier_dropout)
        self.classifier = nn.Linear(width, self.config.num_labels)  # W_t, b_t
        self.crf = LinearChainCrf(self.config.num_labels)

    def tag(
        self,
        outputs: MultimodalNerModelOutput,
        labels: torch.Tensor | None = None,
        word_starts: torch.Tensor | None = None,
        return_predictions: bool | None = None,
    ) -> MultimodalNerOutput:
        """Score the word states; loss if labels [B, w] are given, Viterbi labels in evaluation mode or on request."""
        emissions = self.classifier(self.dropout(outputs.last_hidden_state)).float()  # [B, w, labels]
        mask = outputs.word_mask  # [B, w]
        pieces = self.config.subword_labels == "x" and word_starts is not None
        if pieces and labels is not None:
            labels = self._label_pieces(labels, word_starts, mask)
        loss = predictions = None
        if labels is not None:
            labelled = mask & (labels != -100)
            log_likelihood = self.crf(emissions, labels, labelled)  # [B]
            loss = -log_likelihood.sum()
            if self.config.crf_reduction == "mean":
                loss = loss / labelled.any(1).sum().clamp(min=1)
        if return_predictions or (return_predictions is None and not self.training):
            penalty = bio_transition_penalty(self.config.id2label) if self.config.constrain_bio else None
            predictions = self.crf.decode(emissions, mask, penalty)  # [B, w]
        if pieces:  # hand out what belongs to the words, as in every other mode
            real = word_starts >= 0
            index = word_starts.clamp(min=0)
            emissions = emissions.gather(1, index[..., None].expand(-1, -1, emissions.shape[-1]))
            if predictions is not None:
                predictions = predictions.gather(1, index).masked_fill(~real, -100)
        return MultimodalNerOutput(
            loss=loss,
            logits=emissions,
            predictions=predictions,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            gates=outputs.gates,
        )

    def _label_pieces(self, labels: torch.Tensor, word_starts: torch.Tensor, piece_mask: torch.Tensor) -> torch.Tensor:
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


def textual_nodes(
    states: torch.Tensor, attention_mask: torch.Tensor, word_starts: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return states [B, w, h] and mask [B, w] of the words' first pieces; of all pieces where no words are given."""
    if word_starts is None:
        return states, attention_mask.bool()
    index = word_starts.clamp(min=0)[..., None].expand(-1, -1, states.shape[-1])  # [B, w, h]
    return states.gather(1, index), word_starts >= 0


def _copy_weights(source: nn.Module, target: nn.Module, name: str | os.PathLike) -> None:
    missing, _ = target.load_state_dict(source.state_dict(), strict=False)
    if missing:
        raise ValueError(f"{name} lacks the weights {', '.join(missing[:3])}{' …' if len(missing) > 3 else ''}.")
