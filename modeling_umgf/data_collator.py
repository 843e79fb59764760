"""Dataset rows → batch."""

from dataclasses import dataclass

from transformers import BatchFeature, ProcessorMixin


@dataclass
class MultimodalNerCollator:
    """Run the processor on dataset rows, padded to the longest; pictures are decoded here, in the loader's workers.

    Args:
        processor: a processor of this package.
        with_labels: read `ner_tags`, whose ids must be the model's.
    """

    processor: ProcessorMixin
    with_labels: bool = True

    def __call__(self, rows: list[dict]) -> BatchFeature:
        columns = {name: [row.get(name) for row in rows] for name in self.processor.row_columns if name in rows[0]}
        return self.processor(
            words=[row["tokens"] for row in rows],
            images=[row.get("image") for row in rows],
            labels=[row["ner_tags"] for row in rows] if self.with_labels else None,
            **columns,
        )
