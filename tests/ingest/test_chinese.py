"""Traditional characters become simplified ones, each in its place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penchant.ingest.chinese import simplified


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("華為手機", "华为手机"),
        ("裡面的頭髮發了", "里面的头发发了"),  # one simplified form for two characters
        ("乾燥，乾隆", "干燥，乾隆"),  # two for one: the word decides
        ("Nike 球鞋 😀 臺灣", "Nike 球鞋 😀 台湾"),
        ("already plain 简体", "already plain 简体"),
        ("", ""),
    ],
)
def test_simplified(text: str, expected: str) -> None:
    assert simplified(text) == expected


@given(st.text(st.sampled_from("華為乾隆後皇發髮台臺灣麵面裡里 ab😀𠀀"), max_size=20))
def test_every_character_keeps_its_place(text: str) -> None:
    found = simplified(text)
    assert len(found) == len(text)
    assert all(new == old for new, old in zip(found, text, strict=True) if old in " ab😀")
    assert simplified(found) == found
