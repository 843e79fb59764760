"""Multimodal named entity recognition: find the names in posts that come with a picture.

Importing this package registers its models with the Auto classes of transformers.
"""

from transformers import AutoConfig, AutoModel, AutoModelForTokenClassification

from .configuration_umgf import UmgfConfig
from .modeling_umgf import UmgfForTokenClassification, UmgfModel

__version__ = "0.1.0"

AutoConfig.register("umgf", UmgfConfig, exist_ok=True)
AutoModel.register(UmgfConfig, UmgfModel, exist_ok=True)
AutoModelForTokenClassification.register(UmgfConfig, UmgfForTokenClassification, exist_ok=True)
UmgfConfig.register_for_auto_class("AutoConfig")
UmgfModel.register_for_auto_class("AutoModel")
UmgfForTokenClassification.register_for_auto_class("AutoModelForTokenClassification")

__all__ = ["UmgfConfig", "UmgfForTokenClassification", "UmgfModel"]
