"""A stand-in for the tagger that loads in no time, for the tests of everything around it."""

import os
import time
from pathlib import Path

from modeling_umgf.post_files import Tagged
from modeling_umgf.tagging import Tagger, TaggerOptions, TaggingError


def load_capital_tagger(options: TaggerOptions, device: str | None = None, **settings) -> Tagger:
    """Capitalised words are PER, the longer the surer; a word of the post can make it slow, fail or die."""
    if not Path(options.model).exists():
        raise TaggingError(f"cannot load the model {options.model}: no such folder")

    def tag_one(post):
        text = post.get("text") if post.get("text") is not None else " ".join(post["words"])
        time.sleep(float(os.environ.get("SECONDS_A_SLOW_POST", 0.005)) * ("SLOW" in text))
        if "DIE" in text:
            os._exit(1)
        if "FAIL" in text:
            return Tagged(error="no good")
        entities = []
        start = 0
        for word in text.split():
            start = text.index(word, start)
            place = {"word": word, "start": start, "end": start + len(word)}
            if word[0].isupper():
                entities.append({"entity_group": "PER", "score": min(1, len(word) / 10), **place, "objects": []})
            start += len(word)
        return Tagged(entities, warning="no picture" if "BLIND" in text else None)

    return lambda posts: [tag_one(post) for post in posts]
