"""Multimodal named entity recognition: find the names in posts that come with a picture.

Importing this package registers its systems with the Auto classes of transformers.
"""

import gc

_collects = gc.isenabled()
gc.disable()  # while modules are loaded, of which nothing is ever garbage: a sixth of the time would go there

from transformers import AutoModelForTokenClassification
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_acoa import AcoaConfig
from .configuration_bilstm import BilstmConfig
from .configuration_iaik import IaikConfig
from .configuration_multimodal_ner import MultimodalNerConfig
from .configuration_object_agban import ObjectAgbanConfig
from .configuration_ocsga import OcsgaConfig
from .configuration_rgcn import RgcnConfig
from .configuration_rpbert import RpbertConfig
from .configuration_text_only import TextOnlyConfig
from .configuration_umgf import UmgfConfig
from .configuration_umt import UmtConfig
from .configuration_vg import VgConfig
from .data_collator import MultimodalNerCollator
from .image_processing_multimodal_ner import MultimodalNerImageProcessor
from .letter_case import tell_letter_case
from .modeling_acoa import AcoaForTokenClassification, AcoaModel
from .modeling_bilstm import BilstmModel
from .modeling_iaik import IaikForTokenClassification, IaikModel
from .modeling_multimodal_ner import MultimodalNerForTokenClassification, MultimodalNerModel
from .modeling_object_agban import ObjectAgbanForTokenClassification, ObjectAgbanModel
from .modeling_ocsga import OcsgaForTokenClassification, OcsgaModel
from .modeling_rgcn import RgcnForTokenClassification, RgcnModel
from .modeling_rpbert import RpbertForTokenClassification, RpbertModel
from .modeling_text_only import TextOnlyForTokenClassification, TextOnlyModel
from .modeling_umgf import UmgfForTokenClassification, UmgfModel
from .modeling_umt import UmtForTokenClassification, UmtModel
from .modeling_vg import VgForTokenClassification, VgModel
from .pipeline_multimodal_ner import MultimodalNerPipeline
from .processing_iaik import IaikProcessor
from .processing_multimodal_ner import MultimodalNerProcessor
from .processing_ocsga import OcsgaProcessor
from .processing_rgcn import RgcnProcessor
from .processing_rpbert import RpbertProcessor
from .processing_single_picture import SinglePictureProcessor
from .processing_text_only import TextOnlyProcessor
from .processing_umgf import UmgfImageProcessor, UmgfProcessor
from .relation_index import RelationIndex
from .sentence_encoders import HashingEncoder, SentenceEncoder
from .systems import register, systems
from .tokenization_bilstm import train_word_tokenizer

__version__ = "0.1.0"

register(UmgfForTokenClassification, UmgfProcessor, converter="convert_umgf_checkpoint")
register(RgcnForTokenClassification, RgcnProcessor)
register(TextOnlyForTokenClassification, TextOnlyProcessor)
register(UmtForTokenClassification, SinglePictureProcessor)
register(RpbertForTokenClassification, RpbertProcessor)
register(ObjectAgbanForTokenClassification, UmgfProcessor)
register(IaikForTokenClassification, IaikProcessor)
register(VgForTokenClassification, SinglePictureProcessor)
register(AcoaForTokenClassification, SinglePictureProcessor)
register(OcsgaForTokenClassification, OcsgaProcessor)

PIPELINE_REGISTRY.register_pipeline(
    "multimodal-ner", MultimodalNerPipeline, pt_model=AutoModelForTokenClassification, type="multimodal"
)

if _collects:
    gc.enable()

__all__ = [
    "AcoaConfig",
    "AcoaForTokenClassification",
    "AcoaModel",
    "BilstmConfig",
    "BilstmModel",
    "HashingEncoder",
    "IaikConfig",
    "IaikForTokenClassification",
    "IaikModel",
    "IaikProcessor",
    "MultimodalNerCollator",
    "MultimodalNerConfig",
    "MultimodalNerForTokenClassification",
    "MultimodalNerImageProcessor",
    "MultimodalNerModel",
    "MultimodalNerPipeline",
    "MultimodalNerProcessor",
    "ObjectAgbanConfig",
    "ObjectAgbanForTokenClassification",
    "ObjectAgbanModel",
    "OcsgaConfig",
    "OcsgaForTokenClassification",
    "OcsgaModel",
    "OcsgaProcessor",
    "RelationIndex",
    "RgcnConfig",
    "RgcnForTokenClassification",
    "RgcnModel",
    "RgcnProcessor",
    "RpbertConfig",
    "RpbertForTokenClassification",
    "RpbertModel",
    "RpbertProcessor",
    "SentenceEncoder",
    "SinglePictureProcessor",
    "TextOnlyConfig",
    "TextOnlyForTokenClassification",
    "TextOnlyModel",
    "TextOnlyProcessor",
    "UmgfConfig",
    "UmgfForTokenClassification",
    "UmgfImageProcessor",
    "UmgfModel",
    "UmgfProcessor",
    "UmtConfig",
    "UmtForTokenClassification",
    "UmtModel",
    "VgConfig",
    "VgForTokenClassification",
    "VgModel",
    "register",
    "systems",
    "tell_letter_case",
    "train_word_tokenizer",
]
