"""Raw posts → words, each with its exact place in the text.

The conventions are those of the Twitter-2015 and Twitter-2017 files where these agree: punctuation and apostrophes are
words of their own ("I ' m"). Links, user names and hashtags stay whole as in 2015, numbers as in 2017, and so do
initialisms.
"""

import regex

# Written without spaces: every character is a word, so that a name can begin and end anywhere.
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}ー\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
# Letters, digits, _, combining marks and the joiners of Persian and Indic scripts; soft hyphens too.
_LETTER = rf"[[\w\u00ad]--{_UNSPACED}--\p{{Extended_Pictographic}}]"
_IN_LINK = r"\p{Latin}\p{Cyrillic}\p{Greek}\p{Nd}\-_/#=&%…"
_LINK_REST = rf"(?:(?!&[lg]t;)(?:[{_IN_LINK}.~:?@!$*+,;]|\([^()\s]*\)))*(?!&[lg]t;)(?:[{_IN_LINK}]|\([^()\s]*\))"
_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9-]*\.){1,8}"

_WORD = regex.compile(
    rf"""
      &(?:amp|lt|gt|quot|apos|nbsp|\#\d+|\#[xX][\da-fA-F]+);                                 # HTML entity
    | (?i:https?://|www\.){_LINK_REST} | https?:?/{{0,2}}…                                   # link, also cut short
    | [A-Za-z0-9][A-Za-z0-9._+\-]{{,63}}@{_HOST}[A-Za-z]{{2,}}(?!\w)                          # mail address
    | (?<![\w@.]){_HOST}(?:(?:com|org|net|edu|gov)(?![\w\-]|\.\w)|[a-z]{{2,}}(?=/))(?:/(?:{_LINK_REST})?)? # or bare
    | [@＠][A-Za-z0-9_]+                                                                      # user
    | [\#＃]\w+                                                                               # hashtag
    | \$[A-Za-z]+(?!\w)                                                                      # stock
    | [<>]?[:;=]['’]?[-^o*]?(?:[)\]\}}]+|[(\[\{{]+|\||\*)(?!\w)                              # :-) :'( ;) :|
    | (?<!\w)[:;=]-?[DPpOo3](?!\w) | [:;=]-?[/\\](?![/\w]) | (?<!\w)8-\) | (?<!\w)D:(?!\w)   # :D :/
    | [(\[]-?[:;](?!\w) | </?3+(?!\w) | \^[._\-]?\^ | -_+- | ¯\\_\(ツ\)_/¯                    # (: <3 ^_^ shrug
    | (?=\p{{Extended_Pictographic}}|\p{{Regional_Indicator}}|[0-9\#*]\ufe0f?\u20e3)\X       # emoji
    | (?<!\w)\p{{L}}(?:\.\p{{L}})+(?!\w)\.?                                                  # U.S. a.m.
    | (?<!\w)\d+(?:[.,:/٫٬]\d+)+{_LETTER}*                                                   # 10,000 10:30 9/11
    | {_LETTER}+(?:(?:-|(?<=\p{{L}})\$(?=\p{{L}})){_LETTER}+)*                               # word, T-Mobile, A$AP
    | [^\s\x1c-\x1f][\p{{M}}\u200d]*                                                         # whatever else is visible
    """,
    regex.VERBOSE | regex.VERSION1,
)


def split_post(text: str) -> list[tuple[str, int, int]]:
    """Split a raw post into words.

    Links, user names, hashtags, emoticons, emoji (also sequences of joined characters) and HTML entities are one word
    each; other punctuation stands alone; every kind of Unicode space separates. No other character is lost or changed.

    Args:
        text: the post as its author wrote it.

    Returns:
        (word, start, end) from left to right, with `text[start:end] == word`.
    """
    return [(match.group(), match.start(), match.end()) for match in _WORD.finditer(text)]


def split_labels(text: str) -> list[str]:
    """Split labels that are written as one text, "person, cat", which is how a column of CSV has them."""
    return [label.strip() for label in text.split(",") if label.strip()]
