"""The systems of this package, each known by the `model_type` of its configuration."""

from dataclasses import dataclass

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForTokenClassification,
    AutoProcessor,
)

from .image_processing_multimodal_ner import MultimodalNerImageProcessor


@dataclass(frozen=True)
class System:
    """A registered system.

    Args:
        tagger: its class on `MultimodalNerForTokenClassification`.
        processor: its class on `MultimodalNerProcessor`.
        converter: name of the module that converts checkpoints its authors released, if there is one.
    """

    tagger: type
    processor: type
    converter: str | None = None

    @property
    def config(self) -> type:
        """Its configuration: settings, and what it says of itself (`title`, `summary`, `paper`)."""
        return self.tagger.config_class

    @property
    def reads_pictures(self) -> bool:
        """Whether it ever opens a picture."""
        return "image" in self.processor.columns


_SYSTEMS: dict[str, System] = {}


def register(tagger: type, processor: type, converter: str | None = None) -> System:
    """Make a system known: to the Auto classes of transformers, to the training command and to the documentation.

    Args:
        tagger: its class on `MultimodalNerForTokenClassification`; names the model, which names the configuration.
        processor: its class on `MultimodalNerProcessor`.
        converter: name of the module that converts checkpoints its authors released, if there is one.
    """
    config = tagger.config_class
    AutoConfig.register(config.model_type, config, exist_ok=True)
    AutoModel.register(config, tagger.model_class, exist_ok=True)
    AutoModelForTokenClassification.register(config, tagger, exist_ok=True)
    AutoProcessor.register(config, processor, exist_ok=True)
    image_processors = {"pil": MultimodalNerImageProcessor, "torchvision": MultimodalNerImageProcessor}
    AutoImageProcessor.register(config, image_processor_classes=image_processors, exist_ok=True)
    # so that save_pretrained copies the code, for machines without this package
    config.register_for_auto_class("AutoConfig")
    tagger.model_class.register_for_auto_class("AutoModel")
    tagger.register_for_auto_class("AutoModelForTokenClassification")
    processor.register_for_auto_class("AutoProcessor")
    MultimodalNerImageProcessor.register_for_auto_class("AutoImageProcessor")
    _SYSTEMS[config.model_type] = System(tagger, processor, converter)
    return _SYSTEMS[config.model_type]


def systems() -> dict[str, System]:
    """All registered systems by their `model_type`, in the order of registration."""
    return dict(_SYSTEMS)


def system(model_type: str) -> System:
    """Return a system by its `model_type`.

    Raises:
        ValueError: there is no such system.
    """
    if model_type not in _SYSTEMS:
        raise ValueError(f"There is no system {model_type!r}; take one of {', '.join(_SYSTEMS)}.")
    return _SYSTEMS[model_type]


def text_only_twin(model_type: str) -> System:
    """Return the system that is what another one is without pictures."""
    return next(own for own in (system(model_type), *_SYSTEMS.values()) if not own.reads_pictures)
