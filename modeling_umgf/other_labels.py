"""A trained tagger goes on with other labels."""

import copy
from collections.abc import Sequence

import torch
from transformers.utils import logging

from .modeling_multimodal_ner import LabelHead, MultimodalNerForTokenClassification

logger = logging.get_logger(__name__)


def with_labels(
    model: MultimodalNerForTokenClassification, labels: Sequence[str]
) -> MultimodalNerForTokenClassification:
    """Give a trained tagger other labels; what it has learned of labels that it knows stays.

    Args:
        model: the tagger.
        labels: the BIO labels that it shall have, in the order of their ids.

    Returns:
        A tagger with the same encoders, fusion and auxiliary task. In its emission layers and label decoders the rows
        of shared labels are the old ones, those of new labels start anew. One line in the log says which.
    """
    old_ids = model.config.label2id
    config = copy.deepcopy(model.config)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}
    other = type(model)(config).to(model.device)
    heads = model.label_heads()
    of_labels = {module for head in heads for module in (head.classifier, head.label_decoder)}
    for name, child in model.named_children():
        if of_labels.isdisjoint(child.modules()):
            other.get_submodule(name).load_state_dict(child.state_dict())
    for learned, head in zip(heads, other.label_heads(), strict=True):
        copy_rows(learned, head)
    shared = [label for label in labels if label in old_ids]
    groups = {
        "goes on with the labels": shared,
        "starts anew": [label for label in labels if label not in old_ids],
        "leaves out": [label for label in old_ids if label not in config.label2id],
    }
    told = [f"{what} {', '.join(names)}" for what, names in groups.items() if names]
    logger.warning(f"The model {'; '.join(told)}.")
    return other


@torch.no_grad()
def copy_rows(learned: LabelHead, head: LabelHead) -> None:
    """Give the labels that both heads have the weights that were learned."""
    shared = [label for label in head.labels if label in learned.labels]
    sources = torch.tensor([learned.labels.index(label) for label in shared], dtype=torch.long)
    targets = torch.tensor([head.labels.index(label) for label in shared], dtype=torch.long)
    for name, parameter in head.classifier.named_parameters():  # [L, width], [L]
        parameter[targets] = learned.classifier.get_parameter(name)[sources]
    for name, parameter in head.label_decoder.named_parameters():  # of labels [L], of pairs of labels [L, L]
        own = learned.label_decoder.get_parameter(name)
        if parameter.ndim == 1:
            parameter[targets] = own[sources]
        else:
            parameter[targets[:, None], targets] = own[sources[:, None], sources]
