"""Multimodal named entity recognition: find the names in posts that come with a picture.

Importing this package registers its models and processors with the Auto classes of transformers.
"""

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForTokenClassification,
    AutoProcessor,
)
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_rgcn import RgcnConfig
from .configuration_umgf import UmgfConfig
from .data_collator import MultimodalNerCollator
from .image_processing_umgf import UmgfImageProcessor
from .modeling_rgcn import RgcnForTokenClassification, RgcnModel
from .modeling_umgf import UmgfForTokenClassification, UmgfModel
from .pipeline_multimodal_ner import MultimodalNerPipeline
from .processing_rgcn import RgcnProcessor
from .processing_umgf import UmgfProcessor
from .relation_index import RelationIndex
from .sentence_encoders import HashingEncoder, SentenceEncoder

__version__ = "0.1.0"


def _register(config, base, head, processor):
    AutoConfig.register(config.model_type, config, exist_ok=True)
    AutoModel.register(config, base, exist_ok=True)
    AutoModelForTokenClassification.register(config, head, exist_ok=True)
    AutoProcessor.register(config, processor, exist_ok=True)
    image_processors = {"pil": UmgfImageProcessor, "torchvision": UmgfImageProcessor}
    AutoImageProcessor.register(config, image_processor_classes=image_processors, exist_ok=True)
    # so that save_pretrained copies the code, for machines without this package
    config.register_for_auto_class("AutoConfig")
    base.register_for_auto_class("AutoModel")
    head.register_for_auto_class("AutoModelForTokenClassification")
    processor.register_for_auto_class("AutoProcessor")
    UmgfImageProcessor.register_for_auto_class("AutoImageProcessor")


_register(UmgfConfig, UmgfModel, UmgfForTokenClassification, UmgfProcessor)
_register(RgcnConfig, RgcnModel, RgcnForTokenClassification, RgcnProcessor)
PIPELINE_REGISTRY.register_pipeline(
    "multimodal-ner", MultimodalNerPipeline, pt_model=AutoModelForTokenClassification, type="multimodal"
)

__all__ = [
    "HashingEncoder",
    "MultimodalNerCollator",
    "MultimodalNerPipeline",
    "RelationIndex",
    "RgcnConfig",
    "RgcnForTokenClassification",
    "RgcnModel",
    "RgcnProcessor",
    "SentenceEncoder",
    "UmgfConfig",
    "UmgfForTokenClassification",
    "UmgfImageProcessor",
    "UmgfModel",
    "UmgfProcessor",
]
