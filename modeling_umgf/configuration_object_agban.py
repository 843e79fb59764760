"""Configuration of Object-AGBAN (Zheng et al., IEEE Transactions on Multimedia 2021)."""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict

from .configuration_multimodal_ner import MultimodalNerConfig, at_least, share, weight


@strict
class ObjectAgbanConfig(MultimodalNerConfig):
    """Configuration of Object-AGBAN; sizes and weights are those of its authors' code.

    The model is as wide as its text encoder, a BiLSTM of 200 in the paper; objects are vectors of Mask R-CNN, 1024.

    Args (besides those of `MultimodalNerConfig`):
        max_objects: objects of a post that are read: those of general queries first, then the better score.
        object_size: width of the first layer of the projection of objects; the second is half as wide.
        bilinear_factor: width of the bilinear attention, in widths of the model.
        dropout: dropout of the projected objects in the attention; a BiLSTM drops its own states.
        attention_dropout: dropout of what the bilinear attention reads.
        alignment_size: width of the first layer of the classifier that tells words from objects; the second is half as
            wide.
        alignment_weight: weight of that classifier's loss.
        alignment_object_weight: weight of an object in it, next to that of a word: how much rarer objects are. Both are
            scaled to a sum of 1.
        alignment_steps: batches of training in which the reversal of its gradient grows from 0 to full; 0 = full at
            once.
    """

    model_type = "object_agban"
    title: ClassVar[str] = "Object-AGBAN"
    summary: ClassVar[str] = (
        "Every pair of a word and an object gets a share of one bilinear attention, a gate decides how much of it a "
        "word takes, and words and objects are made hard to tell apart; after the authors' code, with norms over each "
        "word instead of the batch."
    )
    paper: ClassVar[dict[str, str]] = {
        "title": "Object-Aware Multimodal Named Entity Recognition in Social Media Posts With Adversarial Learning",
        "authors": "Zheng, Changmeng and Wu, Zhiwei and Wang, Tao and Cai, Yi and Li, Qing",
        "venue": "IEEE Transactions on Multimedia",
        "year": "2021",
        "url": "https://doi.org/10.1109/TMM.2020.3013398",
    }

    finetune_cnn: bool = False
    max_objects: int = at_least(0, 3)
    object_size: int = at_least(2, 512)
    bilinear_factor: int = at_least(1, 3)
    attention_dropout: float | int = share(0.2)
    alignment_size: int = at_least(2, 100)
    alignment_weight: float | int = weight(1.0)
    alignment_object_weight: float | int = weight(5.37)
    alignment_steps: int = at_least(0, 0)

    def processor_settings(self) -> dict[str, Any]:
        """How many objects are read."""
        return {"max_objects": self.max_objects}

    def validate_architecture(self):
        """Raise ValueError where two settings contradict each other."""
        super().validate_architecture()
        if self.subword_labels == "x":
            raise ValueError("subword_labels='x' labels pieces, but objects are linked to words: use 'first'.")
