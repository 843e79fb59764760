"""Configuration of R-GCN (Zhao et al., ACM Multimedia 2022)."""

from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict

from .configuration_multimodal_ner import AttentiveConfig, at_least, share


@strict
class RgcnConfig(AttentiveConfig):
    """Configuration of R-GCN; the defaults are the paper's, in its sound form, the switches its ablations.

    The model is as wide as its text encoder. The image encoder is frozen, since the features of the neighbours, which a
    relation index holds, come from it.

    Args (besides those of `MultimodalNerConfig`):
        k: neighbours of each relation that are used, the best ones. 0 = none.
        neighbor_feature_size: width of the neighbours' features where they are another kind than the own picture's,
            e.g. caption vectors next to pixels; None = the same kind, projected by the same layer.
        use_inter: pictures whose captions match the text.
        use_intra: pictures that show the same objects as the post's own one.
        use_gate: weigh what the neighbours say, element by element; False = take all of it (ablation w/o Gate).
        readout: "hub": what the graph tells its hub. "mean" over all nodes, as the release intends.
        gcn_norm: "sym": symmetric normalisation of the adjacency matrix. "none" (the release).
        inter_granularity: "pooled": one vector for each neighbour, one message for all words. "region": every word
            attends to the regions of the neighbours.
        num_heads: attention heads.
    """

    model_type = "rgcn"
    title: ClassVar[str] = "R-GCN"
    summary: ClassVar[str] = (
        "Besides its own picture, a post sees pictures of other posts with similar words or objects, found in a "
        "relation index; then every word is labelled."
    )
    paper: ClassVar[dict[str, str]] = {
        "title": "Learning from Different text-image Pairs: A Relation-enhanced Graph Convolutional Network for "
        "Multimodal NER",
        "authors": "Zhao, Fei and Li, Chunhui and Wu, Zhen and Xing, Shangyu and Dai, Xinyu",
        "venue": "ACM Multimedia",
        "year": "2022",
        "url": "https://doi.org/10.1145/3503161.3548228",
    }
    attribute_map: ClassVar[dict[str, str]] = {"num_attention_heads": "num_heads"}

    dropout: float | int = share(0.1)
    finetune_cnn: bool = False
    k: int = at_least(0, 5)
    neighbor_feature_size: int | None = at_least(1, None)
    use_inter: bool = True
    use_intra: bool = True
    use_gate: bool = True
    readout: Literal["hub", "mean"] = "hub"
    gcn_norm: Literal["sym", "none"] = "sym"
    inter_granularity: Literal["pooled", "region"] = "pooled"
    num_heads: int = at_least(1, 8)
    zero_init: bool = False

    def processor_settings(self) -> dict[str, Any]:
        """How many neighbours are looked up."""
        return {"k": self.k}

    def validate_architecture(self):
        """Raise ValueError where two settings contradict each other."""
        super().validate_architecture()
        if self.finetune_cnn and self.vision_config is not None and self.neighbor_feature_size is None:
            raise ValueError(
                "finetune_cnn=True would move the own picture's features away from those in the relation index: keep "
                "the image encoder frozen, or give the neighbours another kind of features (neighbor_feature_size)."
            )
