"""The heads come back from a folder as they were, and a damaged file is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from csm.tokenizer.semantic.semantic_heads import HEADS, SemanticHeads


def test_heads_come_back_from_their_folder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    heads = SemanticHeads(8, 16, num_phones=5, num_letters=7).eval()
    heads.save(tmp_path)
    again = SemanticHeads.read(tmp_path)
    assert again is not None and not again.training
    rows = torch.randn(2, 3, 8)
    assert heads.steps(rows).shape == (2, 12, 16)
    assert torch.equal(again.letter_scores(again.steps(rows)), heads.letter_scores(heads.steps(rows)))
    assert torch.equal(again.phones(again.steps(rows)), heads.phones(heads.steps(rows)))


def test_a_folder_without_heads_has_none_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    assert SemanticHeads.read(tmp_path) is None
    SemanticHeads(8, 16, num_phones=5, num_letters=7).save(tmp_path)
    data = bytearray((tmp_path / HEADS).read_bytes())
    data[-1] ^= 1
    (tmp_path / HEADS).write_bytes(data)
    with pytest.raises(ValueError, match=HEADS):
        SemanticHeads.read(tmp_path)
