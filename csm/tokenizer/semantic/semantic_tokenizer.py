"""The semantic half of the voice tokenizer, which is trained first and alone: waveform to semantic codes."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from csm.tokenizer.codebook import CodebookStack
from csm.tokenizer.config import TokenizerConfig
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.input_checks import check_audio
from csm.tokenizer.io.folder import read_tokenizer, write_tokenizer
from csm.tokenizer.layers import whole_frames
from csm.tokenizer.semantic.semantic_encoder import SemanticEncoder
from csm_kernels import rvq_search

#: Prefix of a part's names here -> in a whole tokenizer.
WHOLE = {"encoder.": "semantic_encoder.", "stack.": "quantizer.semantic."}


class SemanticTokenizer(nn.Module):
    """A semantic encoder and the stack of its codebooks.

    Args:
        config: Sizes of the whole tokenizer, `semantic_layers` above 0.

    Raises:
        ValueError: The config has no semantic encoder.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        if not config.semantic_layers:
            raise ValueError(
                "semantic_layers is 0: expected the layers of a semantic encoder, 4 for Whisper tiny's"
            )
        self.config = config
        self.encoder = SemanticEncoder(config)
        self.stack = CodebookStack(config.semantic_codebooks, config.codebook_size, config.codebook_dim)

    @torch.no_grad()
    def encode(self, audio: Float[Tensor, "B 1 S"]) -> Int[Tensor, "B K T"]:
        """Returns the semantic codes of waveforms; an incomplete last frame is filled with zeros.

        Raises:
            ValueError: `audio` has another shape or dtype, no samples or a value that is not finite.
        """
        check_audio(audio, self.config)
        rows = self.encoder(whole_frames(audio, self.config.samples_per_frame)[:, 0])
        codes = rvq_search(rows.flatten(0, 1), self.stack.codebooks).codes
        return codes.unflatten(0, rows.shape[:2]).transpose(1, 2)

    def give_to(self, tokenizer: ConversationalRVQ) -> None:
        """Copies encoder and codebooks into a tokenizer, where they are not trained further.

        Raises:
            ValueError: The tokenizer's semantic sizes are others.
        """
        encoder = tokenizer.semantic_encoder
        try:
            if encoder is None:
                raise RuntimeError("it has no semantic encoder")
            encoder.load_state_dict(self.encoder.state_dict())
            tokenizer.quantizer.semantic.load_state_dict(self.stack.state_dict())
        except RuntimeError as error:
            raise ValueError(
                f"the tokenizer does not fit this semantic encoder: give it the same semantic_* fields, "
                f"semantic_codebooks, codebook_size and codebook_dim ({error})"
            ) from error
        encoder.requires_grad_(False)

    def save_pretrained(self, folder: Path | str) -> None:
        """Writes config.json and model.safetensors; makes the folder."""
        write_tokenizer(Path(folder), self.config, self.state_dict(), half=False)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> SemanticTokenizer:
        """Reads a folder of `save_pretrained`, or the semantic half of a whole tokenizer's folder.

        Raises:
            ValueError: A file is missing, the config cannot be read, or the weights do not fit it.
        """
        config, state = read_tokenizer(Path(folder))
        tokenizer = cls(config)
        if any(name.startswith(WHOLE["encoder."]) for name in state):
            state = {
                here + name.removeprefix(there): value
                for here, there in WHOLE.items()
                for name, value in state.items()
                if name.startswith(there)
            }
        try:
            tokenizer.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"{folder}: holds no semantic tokenizer; train one first ({error})") from error
        return tokenizer.eval()
