"""A tokenizer learned from posts, for text encoders that are trained from scratch."""

import json
from collections import Counter
from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import BertProcessing
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

SPECIAL = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep")}
MOST_PIECES = 30_000
RARE = 5
INSIDE = "‿"
"""Mark of a piece that goes on with a word; a text that has it itself has an unknown character there."""

PRIVATE_USE = 0xF0000
"""First of the code points that no text has."""


def train_tokenizer(
    sentences: Sequence[Sequence[str]], max_length: int, vocab_size: int | None = None
) -> PreTrainedTokenizerFast:
    """Learn byte-pair encoding of characters, of whatever script, from the words of posts.

    A word begins with a piece of its own characters, and goes on with pieces that are marked "‿". Every character of
    the posts is a piece in both places, as far as `vocab_size` goes; others are [UNK], one for each character. The same
    posts always give the same pieces.

    Args:
        sentences: the words of each post.
        max_length: pieces that the encoder reads at most.
        vocab_size: pieces at most, as many as the posts give; default: the characters, and longer pieces that occur at
            least five times, 30,000 at most.

    Raises:
        ValueError: `vocab_size` is no whole number or too small.
    """
    least = len(SPECIAL) + 2
    if vocab_size is not None and (not isinstance(vocab_size, int) or vocab_size < least):
        raise ValueError(f"vocab_size={vocab_size!r}: a whole number of pieces, at least {least}.")
    size = vocab_size or MOST_PIECES
    words = Counter(word for sentence in sentences for word in " ".join(sentence).split())
    characters = Counter()
    for word, times in words.items():
        characters.update({character: times * count for character, count in Counter(word).items()})
    del characters[INSIDE]
    alphabet = sorted(characters, key=lambda character: (-characters[character], character))
    alphabet = alphabet[: (size - len(SPECIAL)) // 2]
    pieces, merges = learn_pieces(words, alphabet, size - len(SPECIAL), 2 if vocab_size else RARE)
    vocabulary = {piece: i for i, piece in enumerate([*SPECIAL.values(), *pieces])}
    model = BPE(vocabulary, merges, unk_token=SPECIAL["unk_token"], continuing_subword_prefix=INSIDE)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = WhitespaceSplit()
    first, last = ((SPECIAL[name], vocabulary[SPECIAL[name]]) for name in ("cls_token", "sep_token"))
    tokenizer.post_processor = BertProcessing(last, first)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_length, **SPECIAL)


def learn_pieces(
    words: Counter[str], alphabet: Sequence[str], size: int, least_often: int
) -> tuple[list[str], list[tuple[str, str]]]:
    """Learn pieces of words.

    The library's own marks number pieces in another order each time. So each word begins with a private code point in
    place of its first character while pieces are learned; afterwards all others are marked.

    Args:
        words: how often each occurs.
        alphabet: the characters that are pieces.
        size: pieces at most.
        least_often: how often two pieces follow each other, at least, to become one.

    Returns:
        The pieces, and the pairs of them that are joined, in order.
    """
    first = {character: chr(PRIVATE_USE + i) for i, character in enumerate(alphabet)}
    learner = Tokenizer(BPE())
    learner.pre_tokenizer = WhitespaceSplit()
    both = [*alphabet, *first.values()]
    trainer = BpeTrainer(
        vocab_size=size,
        min_frequency=least_often,
        initial_alphabet=both,
        limit_alphabet=len(both),
        show_progress=False,
    )
    texts = (" ".join([first.get(word[0], word[0]) + word[1:]] * times) for word, times in words.items())
    learner.train_from_iterator(texts, trainer)
    learned = json.loads(learner.to_str())["model"]
    plain = {private: character for character, private in first.items()}

    def marked(piece: str) -> str:
        return plain[piece[0]] + piece[1:] if piece[0] in plain else INSIDE + piece

    pieces = sorted(learned["vocab"], key=learned["vocab"].get)
    return [marked(piece) for piece in pieces], [(marked(a), marked(b)) for a, b in learned["merges"]]
