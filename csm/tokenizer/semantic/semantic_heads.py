"""Heads that read phones and letters from the vectors of semantic codes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from csm.system.digests import record_digests, require_intact
from csm.system.files import new_file
from csm.tokenizer.semantic.speech_encoder import STEPS_PER_FRAME

#: File of the heads beside a semantic tokenizer's weights.
HEADS = "heads.safetensors"


class SemanticHeads(nn.Module):
    """Unfolds rows to steps of 20 ms and reads phones and letters from them.

    Encoding does not need them; training and probes of the codes do.

    Args:
        codebook_dim: Width C of the rows.
        width: Width D of the steps, that of the recogniser.
        num_phones, num_letters: Classes; letter 0 is CTC's blank.
    """

    def __init__(self, codebook_dim: int, width: int, num_phones: int, num_letters: int) -> None:
        super().__init__()
        self.unfold = nn.Linear(codebook_dim, STEPS_PER_FRAME * width)
        self.norm = nn.LayerNorm(width)
        self.phones = nn.Linear(width, num_phones)
        self.reader = nn.ModuleList(nn.Conv1d(width, width, 5, padding=2) for _ in range(2))
        self.letters = nn.Linear(width, num_letters)

    def steps(self, rows: Float[Tensor, "B T C"]) -> Float[Tensor, "B N D"]:
        """Returns features [B, 4 T, D] at 50 steps a second."""
        steps: Tensor = self.norm(self.unfold(rows).unflatten(-1, (STEPS_PER_FRAME, -1)).flatten(1, 2))
        return steps

    def letter_scores(self, steps: Float[Tensor, "B N D"]) -> Float[Tensor, "B N L"]:
        """Returns log probabilities [B, N, L] of letters, from 160 ms around each step."""
        x = steps.transpose(1, 2)
        for layer in self.reader:
            x = x + F.gelu(layer(x))
        scores: Tensor = self.letters(x.transpose(1, 2)).float().log_softmax(-1)
        return scores

    def save(self, folder: Path) -> None:
        """Writes the heads into a folder that exists."""
        with new_file(folder / HEADS) as file:
            save_file({name: value.contiguous() for name, value in self.state_dict().items()}, file)
        record_digests(folder, [HEADS])

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> SemanticHeads:
        """Returns the heads of a state dict, in eval mode; their sizes are those of its tensors."""
        steps, rows = state["unfold.weight"].shape
        heads = cls(rows, steps // STEPS_PER_FRAME, len(state["phones.bias"]), len(state["letters.bias"]))
        heads.load_state_dict(dict(state))
        return heads.eval()

    @classmethod
    def read(cls, folder: Path) -> SemanticHeads | None:
        """Returns the heads of a folder in eval mode; None where it has none.

        Raises:
            ValueError: The file is damaged.
        """
        path = folder / HEADS
        if not path.is_file():
            return None
        require_intact(path, "copy the tokenizer's folder again")
        return cls.of(load_file(path))
