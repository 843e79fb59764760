"""Dataset rows → batch."""

from dataclasses import dataclass
from typing import Any

from transformers import BatchFeature

from .processing_multimodal_ner import MultimodalNerProcessor


@dataclass
class MultimodalNerCollator:
    """Run the processor on dataset rows, padded to the longest; pictures are decoded here, in the loader's workers.

    Args:
        processor: a processor of this package.
        with_labels: read `ner_tags`, whose ids must be the model's.
    """

    processor: MultimodalNerProcessor
    with_labels: bool = True

    def __call__(self, rows: list[dict[str, Any]]) -> BatchFeature:
        labels = [row["ner_tags"] for row in rows] if self.with_labels else None
        return self.processor.batch(self.processor.prepare(rows), labels)
