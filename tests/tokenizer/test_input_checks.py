"""Waveforms and codes that no tokenizer can take are refused with the fix, by every tokenizer alike."""

import pytest
import torch

from csm.tokenizer.config import TokenizerConfig
from csm.tokenizer.input_checks import check_audio, check_codes, checked_lengths

CONFIG = TokenizerConfig(n_codebooks=8, semantic_codebooks=2, codebook_size=32)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (torch.full((1, 1, 800), float("nan")), "NaN"),
        (torch.full((1, 1, 800), float("inf")), "infinite"),
        (torch.zeros(1, 1, 0), "no samples"),
        (torch.zeros(1, 2, 800), "mix channels down"),
        (torch.zeros(800), r"expected \[B, 1, S\]"),
        (torch.zeros(0, 1, 800), r"expected \[B, 1, S\]"),
        (torch.zeros(1, 1, 800, dtype=torch.int16), "floating point"),
    ],
)
def test_audio_of_another_form_is_refused_with_the_fix(audio, message):
    with pytest.raises(ValueError, match=message):
        check_audio(audio, CONFIG)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.full((1, 8, 3), 32), "0..31"),
        (torch.full((1, 8, 3), -1), "0..31"),
        (torch.zeros(1, 9, 3, dtype=torch.int64), "K <= 8"),
        (torch.zeros(1, 0, 3, dtype=torch.int64), "1 <= K"),
        (torch.zeros(1, 8, 0, dtype=torch.int64), "at least one frame"),
        (torch.zeros(8, 3, dtype=torch.int64), r"\[B, K, T\]"),
        (torch.zeros(1, 8, 3), "int64"),
    ],
)
def test_codes_of_another_form_are_refused_with_the_fix(codes, message):
    with pytest.raises(ValueError, match=message):
        check_codes(codes, CONFIG)


def test_a_decoder_that_needs_several_codebooks_refuses_fewer():
    codes = torch.zeros(1, 2, 3, dtype=torch.int64)
    check_codes(codes, CONFIG, fewest=2)
    with pytest.raises(ValueError, match="3 <= K <= 8"):
        check_codes(codes, CONFIG, fewest=3)


def test_lengths_are_one_per_item_within_the_audio_and_all_of_it_if_none_are_given():
    audio = torch.zeros(2, 1, 800)
    assert checked_lengths(None, audio).tolist() == [800, 800]
    assert checked_lengths(torch.tensor([1, 800]), audio).tolist() == [1, 800]
    for lengths in ([0, 800], [801, 800], [800]):
        with pytest.raises(ValueError, match="lengths is"):
            checked_lengths(torch.tensor(lengths), audio)
