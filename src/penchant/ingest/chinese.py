"""Traditional Chinese characters as simplified ones, by OpenCC's tables."""

import re
from functools import cache

import opencc

HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


@cache
def converter() -> opencc.OpenCC:
    """Loaded once, when first needed."""
    return opencc.OpenCC("t2s")


def simplified(text: str) -> str:
    """`text` with simplified characters, each in the place of the one it stands for, so that offsets stay true.

    Words decide where a character has several simplified forms (乾燥 is 干燥, 乾隆 stays); in the rare text where that
    would change the length, each character is converted by itself.
    """
    if not HAN.search(text):
        return text
    whole = str(converter().convert(text))
    if len(whole) == len(text):
        return whole
    alone = (str(converter().convert(each)) for each in text)
    return "".join(new if len(new) == 1 else old for old, new in zip(text, alone, strict=True))
