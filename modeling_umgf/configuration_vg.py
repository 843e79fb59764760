"""Configuration of VG (Lu et al., ACL 2018)."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict

from .configuration_multimodal_ner import MultimodalNerConfig, at_least


@strict
class VgConfig(MultimodalNerConfig):
    """Configuration of VG.

    Args (besides those of `MultimodalNerConfig`):
        text_config: default: the embeddings [word; characters] of a BiLSTM encoder, as in the paper. The BiLSTM on top
            of them is VG's own, since the picture is what it begins with.
        d_model: width d of that BiLSTM, both directions together; the regions of the picture have d / 2.
    """

    model_type = "vg"
    title: ClassVar[str] = "VG"
    summary: ClassVar[str] = (
        "The post chooses regions of the picture, a BiLSTM begins with them, and a gate for every word decides between "
        "what the word and what the picture says."
    )
    paper: ClassVar[dict[str, str]] = {
        "title": "Visual Attention Model for Name Tagging in Multimodal Social Media",
        "authors": "Lu, Di and Neves, Leonardo and Carvalho, Vitor and Zhang, Ning and Ji, Heng",
        "venue": "ACL",
        "year": "2018",
        "url": "https://doi.org/10.18653/v1/P18-1185",
    }
    finetune_cnn: bool = False
    d_model: int = at_least(2, 200)

    default_text_config = {
        "model_type": "bilstm",
        "characters": "lstm",
        "num_hidden_layers": 0,
        "hidden_size": 250,
    }

    def validate_architecture(self):
        """Raise ValueError where two settings contradict each other."""
        super().validate_architecture()
        if self.d_model % 2:
            raise ValueError(f"d_model={self.d_model} is odd: a BiLSTM has two directions.")
