"""Configuration of UMGF (Zhang et al., AAAI 2021)."""

from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict

from .configuration_multimodal_ner import MultimodalNerConfig, at_least


@strict
class UmgfConfig(MultimodalNerConfig):
    """Configuration of UMGF; the defaults are the paper's, the switches its ablations and the released code.

    Args (besides those of `MultimodalNerConfig`):
        num_layers: fusion layers L.
        d_model: width d of the graph nodes.
        num_heads: attention heads h.
        d_ff: width of the feed-forward layers (the paper does not say; 256 in the release).
        visual_nodes: "objects" found by noun phrases and general words, only "general" ones, the whole "picture", it
            and its "tiles" (no detector), or the cells of the picture's "grid" (ablation w/o Tar.).
        inter_edges: "typed": a word is linked to the objects in `inter_modal_mask`. "full": to all (the release).
        position_encoding: "sinusoidal" over piece positions, or "none" (the release).
        text_mlp: "relu" (linear, ReLU, dropout), or "linear" (the release).
        visual_attention: "full", or "qk_only": no value and output projection (the release).
        visual_projection: one more linear layer on the visual features (the release's new `resnet.fc`).
        visual_self_attention: False = no edges between objects (ablation w/o VCorr.).
        share_modal_params: True = one set of parameters for both modalities (ablation w/o Ind.).
        intra_ffn: a feed-forward layer inside the intra-modal block too (Figure 2 draws it, the equations lack it).
        concat_bert: tag on the text encoder's state next to the fused one.
    """

    model_type = "umgf"
    title: ClassVar[str] = "UMGF"
    summary: ClassVar[str] = (
        "Words and the objects of the picture exchange information along the edges of one graph, then every word is "
        "labelled."
    )
    paper: ClassVar[dict[str, str]] = {
        "title": "Multi-modal Graph Fusion for Named Entity Recognition with Targeted Visual Guidance",
        "authors": "Zhang, Dong and Wei, Suzhong and Li, Shoushan and Wu, Hanqian and Zhu, Qiaoming and Zhou, Guodong",
        "venue": "AAAI",
        "year": "2021",
        "url": "https://doi.org/10.1609/aaai.v35i16.17687",
    }
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "d_model",
        "num_attention_heads": "num_heads",
        "num_hidden_layers": "num_layers",
    }

    num_layers: int = at_least(1, 2)
    d_model: int = at_least(1, 512)
    num_heads: int = at_least(1, 8)
    d_ff: int = at_least(1, 256)
    visual_nodes: Literal["objects", "general", "picture", "tiles", "grid"] = "objects"
    inter_edges: Literal["typed", "full"] = "typed"
    position_encoding: Literal["sinusoidal", "none"] = "sinusoidal"
    text_mlp: Literal["relu", "linear"] = "relu"
    visual_attention: Literal["full", "qk_only"] = "full"
    visual_projection: bool = False
    visual_self_attention: bool = True
    share_modal_params: bool = False
    intra_ffn: bool = False
    concat_bert: bool = True
    zero_init: bool = False
    node_dropout: float = 0.0
    context_nodes: bool = False

    def processor_settings(self) -> dict[str, Any]:
        """Which objects become nodes."""
        return {"visual_nodes": self.visual_nodes}

    def validate_architecture(self):
        """Raise ValueError where two settings contradict each other."""
        super().validate_architecture()
        if self.d_model % self.num_heads:
            raise ValueError(f"d_model={self.d_model} is not a multiple of num_heads={self.num_heads}.")
        if self.share_modal_params and (self.visual_attention != "full" or not self.visual_self_attention):
            raise ValueError("share_modal_params=True needs visual_attention='full' and visual_self_attention=True.")
        if self.subword_labels == "x" and self.inter_edges != "full":
            raise ValueError("subword_labels='x' labels pieces, which typed edges do not know: use inter_edges='full'.")
