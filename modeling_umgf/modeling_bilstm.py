"""A BiLSTM over words and their characters: the text encoder of the systems before BERT.

BiLSTM-CRF, CNN-BiLSTM-CRF (Ma and Hovy, ACL 2016) and HBiLSTM-CRF (Lample et al., NAACL 2016) are this encoder with a
CRF. Letters in shapes: B posts, n words, c characters, e width of the characters' embeddings, h width of the states.
"""

import math

import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from .configuration_bilstm import BilstmConfig
from .recurrent_layers import BiLstm
from .tokenization_bilstm import CHARACTER_VOCABULARY


class CharacterCnn(nn.Module):
    """A convolution over three characters, then the largest value of each filter (Ma and Hovy, 2016)."""

    def __init__(self, config: BilstmConfig):
        super().__init__()
        self.convolution = nn.Conv1d(config.character_embedding_size, config.character_size, 3, padding=1)

    def forward(self, characters: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Turn embedded characters [N, c, e] of words into [N, character_size]; 0 for a word without any."""
        filters = self.convolution(characters.transpose(1, 2)).transpose(1, 2)  # [N, c, character_size]
        largest = filters.masked_fill(~mask[..., None], torch.finfo(filters.dtype).min).amax(1)
        return largest * mask.any(1, keepdim=True)


class CharacterLstm(nn.Module):
    """The last states of a BiLSTM over the characters (Lample et al., 2016)."""

    def __init__(self, config: BilstmConfig):
        super().__init__()
        self.bilstm = BiLstm(config.character_embedding_size, config.character_size)

    def forward(self, characters: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Turn embedded characters [N, c, e] of words into [N, character_size]; 0 for a word without any."""
        return self.bilstm(characters, mask)[1]


CHARACTER_ENCODERS = {"cnn": CharacterCnn, "lstm": CharacterLstm}


class BilstmModel(PreTrainedModel):
    """Word embeddings, what the characters of each word add to them, and BiLSTMs."""

    config: BilstmConfig
    base_model_prefix = "bilstm"

    def __init__(self, config: BilstmConfig):
        super().__init__(config)
        self.word_embeddings = nn.Embedding(config.vocab_size, config.embedding_size, config.pad_token_id)
        self.reads_characters = config.characters != "none"
        if self.reads_characters:
            self.character_embeddings = nn.Embedding(CHARACTER_VOCABULARY, config.character_embedding_size, 0)
            self.character_encoder = CHARACTER_ENCODERS[config.characters](config)
        widths = [config.input_size] + [config.hidden_size] * config.num_hidden_layers
        self.layers = nn.ModuleList(BiLstm(width, config.hidden_size) for width in widths[:-1])
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """The embeddings of the words."""
        return self.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding):
        self.word_embeddings = value

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Embedding) and not getattr(module.weight, "_is_hf_initialized", False):
            bound = math.sqrt(3 / module.embedding_dim)
            init.uniform_(module.weight, -bound, bound)
            if module.padding_idx is not None:
                init.zeros_(module.weight[module.padding_idx])
        elif isinstance(module, nn.Conv1d):
            init.xavier_uniform_(module.weight)

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        character_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> BaseModelOutput:
        """Encode posts.

        Args:
            input_ids: [B, n] words.
            attention_mask: [B, n] real words; None = all.
            character_ids: [B, n, c] the characters of each word, 0 = padding, see `character_ids`; needed unless
                `characters="none"`.
            inputs_embeds: [B, n, embedding_size] instead of input_ids.
            output_hidden_states: also return the embeddings and the states of each layer.

        Raises:
            ValueError: character_ids are missing, or given to a model that reads none.
        """
        if self.reads_characters != (character_ids is not None):
            raise ValueError(
                f"This BiLSTM has characters={self.config.characters!r}, but the batch has "
                f"{'no' if character_ids is None else 'its'} character_ids: its tokenizer must be made by "
                f"train_word_tokenizer(…, characters={self.reads_characters})."
            )
        x = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds  # [B, n, embedding_size]
        mask = x.new_ones(x.shape[:2]) if attention_mask is None else attention_mask
        mask = mask.bool()  # [B, n]
        if self.reads_characters:
            characters = self.dropout(self.character_embeddings(character_ids))  # [B, n, c, e]
            own = self.character_encoder(characters.flatten(0, 1), (character_ids > 0).flatten(0, 1))
            x = torch.cat([x, own.unflatten(0, mask.shape)], dim=-1)  # [B, n, input_size]
        states = [self.dropout(x)]
        for layer in self.layers:
            x, _ = layer(states[-1], mask)  # [B, n, h]
            states.append(self.dropout(x))
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return BaseModelOutput(last_hidden_state=states[-1], hidden_states=tuple(states) if wanted else None)


# The configuration that is registered may be that of another copy of this code: a saved model carries one.
AutoModel.register(CONFIG_MAPPING[BilstmConfig.model_type], BilstmModel, exist_ok=True)
