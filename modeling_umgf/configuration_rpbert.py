"""Configuration of RpBERT (Sun et al., AAAI 2021)."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict

from .configuration_multimodal_ner import MultimodalNerConfig, at_least, share, weight


@strict
class RpbertConfig(MultimodalNerConfig):
    """Configuration of RpBERT; the defaults are those of its release, less its Flair embeddings.

    Args (besides those of `MultimodalNerConfig`):
        lstm_layers: bidirectional LSTM layers over the words; 0 = none.
        lstm_size: width of each of their directions.
        relation_weight: weight of the loss of the text-image relation, learned from posts that say whether their
            picture adds to the text (`picture_adds`). Without such posts the gate learns from the labels alone.
    """

    model_type = "rpbert"
    title: ClassVar[str] = "RpBERT"
    summary: ClassVar[str] = (
        "The text encoder reads the words and the regions of the picture twice: first to judge whether the picture "
        "adds to the text, then to label the words with as much of the picture as that."
    )
    paper: ClassVar[dict[str, str]] = {
        "title": "RpBERT: A Text-image Relation Propagation-based BERT Model for Multimodal NER",
        "authors": "Sun, Lin and Wang, Jiquan and Zhang, Kai and Su, Yindu and Weng, Fangsheng",
        "venue": "AAAI",
        "year": "2021",
        "url": "https://doi.org/10.1609/aaai.v35i15.17633",
    }

    dropout: float | int = share(0.0)
    classifier_dropout: float | int = share(0.0)
    lstm_layers: int = at_least(0, 2)
    lstm_size: int = at_least(1, 256)
    relation_weight: float | int = weight(0.05)

    def validate_architecture(self):
        """Raise ValueError where two settings contradict each other."""
        super().validate_architecture()
        if getattr(self.text_config, "characters", "none") != "none":
            raise ValueError(
                "RpBERT's text encoder reads words and regions of the picture at once, and regions have no characters: "
                "give one with characters='none'."
            )
