"""The card of a repository on the Hub that a model or its processor is pushed to by itself, without its folder."""

import os
import re
from pathlib import Path

from huggingface_hub import HfApi

CARD = """\
---
library_name: transformers
pipeline_tag: token-classification
tags:
- named-entity-recognition
---

# {name}

Finds names in posts. This repository was pushed in parts, without the folder of its training run: the data, the scores
and the license of the weights are not known here. The README.md of that folder tells them.

## Use

```python
from transformers import pipeline

tagger = pipeline("multimodal-ner", model="{name}", trust_remote_code=True)
entities = tagger("Anna Smith sings in Paris tonight")
```
"""


def add_card(
    repo_id: str, folder: str | os.PathLike | None, private: bool | None = None, token: bool | str | None = None
) -> None:
    """Give a repository a card, unless it has one; transformers would write a template with nothing in it.

    Args:
        repo_id: the repository; made if it is not there.
        folder: where model or processor were loaded from. A training run left its card there; else the card says what
            is not known.
        private: whether a new repository is private.
        token: as for `push_to_hub`.
    """
    hub = HfApi(token=token)
    name = hub.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if hub.file_exists(name, "README.md"):
        return
    card = CARD.format(name=name)
    if folder and Path(folder, "run.json").is_file() and Path(folder, "README.md").is_file():
        card = Path(folder, "README.md").read_text(encoding="utf-8")
        card = re.sub(r'("multimodal-ner", model)="[^"]*"', rf'\1="{name}"', card)
    hub.upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id=name, commit_message="Add card")
