"""A frozen speech recogniser: first weights of the semantic encoder, and a decoder that reads its codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from csm.system.extras import missing_package
from csm.tokenizer.semantic.ctranslate2_weights import read_weights
from csm.tokenizer.semantic.semantic_encoder import SemanticEncoder
from csm.tokenizer.semantic.speech_encoder import (
    STEPS_PER_FRAME,
    SpeechEncoder,
    SpeechEncoderConfig,
    whisper_state,
)
from csm.tokenizer.semantic.text_decoder import whisper_decoder

MODEL, TOKENIZER = "model.bin", "tokenizer.json"
START, WITHOUT_TIMES, END = "<|startoftranscript|>", "<|notimestamps|>", "<|endoftext|>"
#: Text ids of language and task, which multilingual models expect; English-only ones have fewer ids.
ENGLISH_IDS, MULTILINGUAL = 51_864, ("<|en|>", "<|transcribe|>")
#: Class that the loss leaves out.
IGNORED = -100
#: Log-mel features in silence, and how many of them the encoder gets after the speech: it was trained on
#: speech that silence follows.
SILENCE, SILENT_STEPS = -0.75, 160


class Recogniser:
    """Whisper in CTranslate2's layout: its decoder in torch, its weights for an encoder.

    Args:
        folder: Folder with model.bin and tokenizer.json.
        device: Where the decoder runs.

    Raises:
        ValueError: A file is missing or damaged, or the package `tokenizers` is not installed.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ValueError(missing_package("tokenizers", "a recogniser's texts")) from error
        for name in (MODEL, TOKENIZER):
            if not (folder / name).is_file():
                raise ValueError(f"recogniser: {folder} has no {name}; expected a Whisper for faster-whisper")
        self.folder = folder
        self.decoder = whisper_decoder(read_weights(folder / MODEL, prefix="decoder/"))
        self.decoder.eval().requires_grad_(False).to(device)
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self.encoder = self._whole_encoder().eval().requires_grad_(False).to(device)
        special = (START, *(MULTILINGUAL if self._multilingual else ()), WITHOUT_TIMES)
        ids = {name: self._tokenizer.token_to_id(name) for name in (*special, END)}
        if absent := [name for name, found in ids.items() if found is None]:
            raise ValueError(
                f"recogniser: {folder / TOKENIZER} has no {', '.join(absent)}; expected a Whisper's"
            )
        self._before, self._end = [int(ids[name] or 0) for name in special], int(ids[END] or 0)

    @property
    def width(self) -> int:
        """Width of the features that the decoder reads."""
        return self.decoder.embedding.embedding_dim

    @property
    def _multilingual(self) -> bool:
        return self.decoder.embedding.num_embeddings > ENGLISH_IDS

    def start(self, encoder: SemanticEncoder) -> None:
        """Copies the recogniser's encoder into a semantic encoder.

        Raises:
            ValueError: Its sizes are others.
        """
        try:
            encoder.encoder.load_state_dict(self.encoder.state_dict())
        except RuntimeError as error:
            raise ValueError(
                f"the recogniser in {self.folder} does not fit semantic_layers, semantic_width and "
                f"semantic_heads: {error}"
            ) from error

    def _whole_encoder(self) -> SpeechEncoder:
        """The recogniser's encoder as it was trained: one block of attention over its 30 s."""
        state = whisper_state(read_weights(self.folder / MODEL, prefix="encoder/"))
        width = len(state["norm.weight"])
        layers = len({name.split(".")[1] for name in state if name.startswith("layers.")})
        # Whisper's heads are 64 wide in every size.
        config = SpeechEncoderConfig(width=width, n_layers=layers, n_heads=max(1, width // 64), past_frames=1)
        block = config.positions // STEPS_PER_FRAME
        encoder = SpeechEncoder(replace(config, block_frames=block))
        encoder.load_state_dict(state)
        return encoder

    @torch.no_grad()
    def features(self, log_mel: Float[Tensor, "B M 80"]) -> Float[Tensor, "B N D"]:
        """Returns what the recogniser's own encoder gives its decoder, at 50 steps a second.

        Args:
            log_mel: Features of whole clips of up to 28 s, 10 ms each.
        """
        steps = log_mel.shape[1] // 2
        silence = log_mel.new_full((len(log_mel), SILENT_STEPS, log_mel.shape[2]), SILENCE)
        found: Tensor = self.encoder(torch.cat([log_mel, silence], dim=1))
        return found[:, :steps]

    def ids(self, texts: Sequence[str]) -> Int[Tensor, "B L"]:
        """Returns the text ids of texts, special ones around them, padded with IGNORED; none for "" ."""
        rows = []
        for text in texts:
            found = self._tokenizer.encode(" " + text.strip(), add_special_tokens=False).ids
            row = [*self._before, *found, self._end] if text.strip() else []
            rows.append(torch.tensor(row[: len(self.decoder.positions)], dtype=torch.int64))
        return pad_sequence(rows, batch_first=True, padding_value=IGNORED)

    @torch.no_grad()
    def read(
        self, steps: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"], longest: Int[Tensor, " B"]
    ) -> list[str]:
        """Returns the text that the decoder reads by argmax.

        Unlike a CTC head a decoder has a language model inside.

        Args:
            steps: Features at 50 steps a second, in place of the encoder's.
            mask: False on padding.
            longest: Most text ids of each item: a text that runs on is cut there.
        """
        device = steps.device
        ids = torch.tensor([self._before], device=device).repeat(len(steps), 1)
        ended = torch.zeros(len(steps), dtype=torch.bool, device=device)
        places = min(int(longest.max()), len(self.decoder.positions) - len(self._before))
        for place in range(places):
            ended |= place >= longest.to(device)
            following = self.decoder.following(ids, steps, mask).argmax(-1)
            ids = torch.cat([ids, following.masked_fill(ended, self._end).unsqueeze(1)], dim=1)
            ended |= following == self._end
            if bool(ended.all()):
                break
        rows = [row[len(self._before) :].tolist() for row in ids]
        texts = [self._tokenizer.decode(row[: _until(row, self._end)]) for row in rows]
        return [text.strip() for text in texts]

    def loss(
        self, ids: Int[Tensor, "B L"], steps: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"]
    ) -> Float[Tensor, ""]:
        """Returns the mean cross entropy of a text id, nats.

        Args:
            ids: Of `ids`.
            steps: Features at 50 steps a second, in place of the encoder's.
            mask: False on padding.
        """
        if ids.shape[1] < 2:
            return steps.sum() * 0
        targets = ids[:, 1:].clone()
        targets[:, : len(self._before) - 1] = IGNORED  # the special ids are given, not predicted
        logits = self.decoder(ids[:, :-1].clamp_min(0), steps, mask).float()
        count = (targets != IGNORED).sum().clamp_min(1)
        total = F.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return total / count


def _until(ids: Sequence[int], end: int) -> int:
    """Returns the number of ids before the first `end`."""
    return next((place for place, found in enumerate(ids) if found == end), len(ids))
