"""Configuration of the BiLSTM, a text encoder that is trained from scratch."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING


@strict
class BilstmConfig(PreTrainedConfig):
    """Configuration of a BiLSTM over words and their characters: `text_config: {"model_type": "bilstm", …}`.

    The defaults are those of BiLSTM-CRF; with `characters="cnn"` the encoder is that of CNN-BiLSTM-CRF (Ma and Hovy,
    ACL 2016), with `characters="lstm"` that of HBiLSTM-CRF (Lample et al., NAACL 2016).

    Args:
        vocab_size: words.
        embedding_size: width of the word embeddings.
        hidden_size: width of the states, both directions together.
        num_hidden_layers: BiLSTMs on each other; 0 = the states are the embeddings [word; characters] themselves.
        characters: what the characters of a word add to its embedding: "none" nothing, "cnn" a convolution of width 3
            and the maximum over time, "lstm" the last states of a BiLSTM.
        character_embedding_size: width of the character embeddings.
        character_size: width of what the characters say: filters, or both directions of their BiLSTM.
        dropout: of the embeddings and of the states.
        pad_token_id: word that is padding.

    Raises:
        StrictDataclassError: a setting has an impossible value, or two contradict each other.
    """

    model_type = "bilstm"

    vocab_size: int = 30000
    embedding_size: int = 200
    hidden_size: int = 200
    num_hidden_layers: int = 1
    characters: Literal["none", "cnn", "lstm"] = "none"
    character_embedding_size: int = 30
    character_size: int = 50
    dropout: float | int = 0.5
    pad_token_id: int | None = 0

    @property
    def input_size(self) -> int:
        """Width of a word's embedding together with what its characters say."""
        return self.embedding_size + (0 if self.characters == "none" else self.character_size)

    def validate_architecture(self):
        """Raise ValueError for sizes that no BiLSTM has."""
        if self.num_hidden_layers and self.hidden_size % 2:
            raise ValueError(f"hidden_size={self.hidden_size} is odd: a BiLSTM has two directions.")
        if not self.num_hidden_layers and self.hidden_size != self.input_size:
            raise ValueError(
                f"Without hidden layers the states are the embeddings: hidden_size={self.hidden_size} must be "
                f"{self.input_size}."
            )
        if self.characters == "lstm" and self.character_size % 2:
            raise ValueError(f"character_size={self.character_size} is odd: a BiLSTM has two directions.")


if BilstmConfig.model_type not in CONFIG_MAPPING:  # models carry copies of this file: the first one counts for all
    AutoConfig.register(BilstmConfig.model_type, BilstmConfig)
