"""A trained tagger goes on with other labels."""

import copy
from collections.abc import Sequence

import torch
from transformers.utils import logging

from .modeling_multimodal_ner import MultimodalNerForTokenClassification

logger = logging.get_logger(__name__)


def with_labels(
    model: MultimodalNerForTokenClassification, labels: Sequence[str]
) -> MultimodalNerForTokenClassification:
    """Give a trained tagger other labels; what it has learned of labels that it knows stays.

    Args:
        model: the tagger.
        labels: the BIO labels that it shall have, in the order of their ids.

    Returns:
        A tagger with the same encoders and fusion. In its emission layer and label decoder the rows of shared labels
        are the old ones, those of new labels start anew. One line in the log says which.
    """
    old_ids = model.config.label2id
    config = copy.deepcopy(model.config)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}
    other = type(model)(config).to(model.device)
    other.base_model.load_state_dict(model.base_model.state_dict())
    shared = [label for label in labels if label in old_ids]
    sources = torch.tensor([old_ids[label] for label in shared], dtype=torch.long, device=model.device)
    targets = torch.tensor([config.label2id[label] for label in shared], dtype=torch.long, device=model.device)
    with torch.no_grad():
        for name, parameter in other.classifier.named_parameters():  # [L, width], [L]
            parameter[targets] = model.classifier.get_parameter(name)[sources]
        for name, parameter in other.label_decoder.named_parameters():  # of labels [L], of pairs of labels [L, L]
            learned = model.label_decoder.get_parameter(name)
            if parameter.ndim == 1:
                parameter[targets] = learned[sources]
            else:
                parameter[targets[:, None], targets] = learned[sources[:, None], sources]
    groups = {
        "goes on with the labels": shared,
        "starts anew": [label for label in labels if label not in old_ids],
        "leaves out": [label for label in old_ids if label not in config.label2id],
    }
    told = [f"{what} {', '.join(names)}" for what, names in groups.items() if names]
    logger.warning(f"The model {'; '.join(told)}.")
    return other
