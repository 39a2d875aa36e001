"""CSMModel: autoregressive transformer over interleaved text and audio-code rows.

One model for text-to-speech and transcription. It adds to ConversationNetwork what a user calls: texts and
codes as inputs, generation, and model folders.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import torch
from jaxtyping import Int
from torch import Tensor

from csm.model.generate import generate_text, generate_voice
from csm.model.input_checks import check_codes, checked_texts
from csm.network.conversation_network import ConversationNetwork
from csm.network.io import checkpoints
from csm.network.model_config import CSMConfig
from csm.network.outputs import CSMCrossEntropies, CSMLogits, CSMOutput, GeneratedText, GeneratedVoice
from csm.network.parameters import Layout
from csm.sequences.packed_batch import RowBatch
from csm.sequences.turns import TurnFrames


class CSMModel(ConversationNetwork):
    """A conversational speech model.

    Args:
        config: Sizes of the model.
        d_model, n_layers, n_heads: Shortcuts that replace the config's fields.

    Raises:
        ValueError: Sizes do not fit each other, or there is no such text codec.
    """

    def __init__(
        self,
        config: CSMConfig | None = None,
        *,
        d_model: int | None = None,
        n_layers: int | None = None,
        n_heads: int | None = None,
    ) -> None:
        given = {"d_model": d_model, "n_layers": n_layers, "n_heads": n_heads}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        super().__init__(dataclasses.replace(config or CSMConfig(), **changes))

    @overload
    def forward(
        self, text_tokens: Tensor | Sequence[str], voice_codes: Int[Tensor, "B K T"]
    ) -> CSMLogits: ...

    @overload
    def forward(self, text_tokens: Tensor | Sequence[str]) -> GeneratedVoice: ...

    @overload
    def forward(self, *, voice_codes: Int[Tensor, "B K T"]) -> GeneratedText: ...

    @overload
    def forward(self, *, batch: RowBatch, label_smoothing: float = 0.0) -> CSMCrossEntropies: ...

    def forward(
        self,
        text_tokens: Tensor | Sequence[str] | None = None,
        voice_codes: Int[Tensor, "B K T"] | None = None,
        *,
        batch: RowBatch | None = None,
        label_smoothing: float = 0.0,
    ) -> CSMOutput:
        """Gives the logits of texts and voice together; with one of them alone, generates the other.

        A batch gives its cross-entropies instead, because engines of distributed training call a module, not
        a method; `logits` gives its logits.

        Args:
            text_tokens: Texts, or byte ids int64 [B, L] padded with 256.
            voice_codes: int64 [B, K, T] with K at least `num_codebooks`.
            batch: Prepared rows, as training uses them; excludes the other two.
            label_smoothing: Label smoothing of a batch's cross-entropies.

        Raises:
            ValueError: Nothing or too much is given, a text is empty, codes have a wrong shape or range, or a
                sequence is longer than max_context.
        """
        if batch is not None:
            if text_tokens is not None or voice_codes is not None:
                raise ValueError(
                    "got batch together with text_tokens or voice_codes: expected one or the other"
                )
            return self.cross_entropies(batch, label_smoothing)
        if text_tokens is not None and voice_codes is not None:
            return self.logits(self.pair_rows(text_tokens, voice_codes))
        if text_tokens is not None:
            return GeneratedVoice(voice_codes=generate_voice(self, self._texts(text_tokens)))
        if voice_codes is not None:
            check_codes(voice_codes, self.config)
            return GeneratedText(text_tokens=generate_text(self, voice_codes))
        raise ValueError("expected text_tokens, voice_codes, both, or batch; got none")

    def pair_rows(self, text_tokens: Tensor | Sequence[str], voice_codes: Int[Tensor, "B K T"]) -> RowBatch:
        """Returns the rows of `forward(text_tokens, voice_codes)`: every item once spoken, once transcribed.

        Raises:
            ValueError: As `forward`, or there are not as many texts as voices.
        """
        texts = self._texts(text_tokens)
        check_codes(voice_codes, self.config)
        if len(texts) != len(voice_codes):
            raise ValueError(
                f"{len(texts)} texts with voice of batch {len(voice_codes)}: expected as many of each"
            )
        rows = self.new_rows()
        for index, (text, codes) in enumerate(zip(texts, voice_codes.cpu(), strict=True)):
            turn = TurnFrames(f"item_{index}", text, 0, codes)
            rows.begin_sequence()
            rows.add_spoken(turn)
            rows.begin_sequence()
            rows.add_transcribed(turn)
        return rows.build().to(self.audio_embedding.weight.device)

    def save_pretrained(
        self,
        folder: Path | str,
        layout: Layout = "csm",
        *,
        half: bool = False,
        codec_from: Path | str | None = None,
        shard_bytes: int = 50 * 10**9,
    ) -> None:
        """Writes config.json and the weights, in several files if they are large; makes the folder.

        Args:
            folder: Target; a tokenizer.json that the config names is copied there.
            layout: "csm" keeps everything; the two public layouts of csm-1b hold what csm-1b has.
            half: Whether to store matrices in 8 bits and the rest in half precision; for layout "csm".
            codec_from: Folder of transformers' CSM whose Mimi goes along; for layout "transformers".
            shard_bytes: Most bytes of one weight file (a larger tensor has one of its own).

        Raises:
            ValueError: The layout has no place for what this model computes.
        """
        checkpoints.save(self, folder, layout, half=half, codec_from=codec_from, shard_bytes=shard_bytes)

    @classmethod
    def from_pretrained(
        cls,
        folder: Path | str,
        *,
        config: CSMConfig | None = None,
        text: str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> CSMModel:
        """Reads a folder of `save_pretrained`, or of csm-1b as Sesame or transformers publish it.

        Parts that csm-1b lacks are added to the public layouts with closed gates: the model computes csm-1b
        bit for bit until it is trained on. Peak memory is one copy of the weights. A model that predicts
        latents takes its code vectors from the tokenizer in tokenizer/ in the folder, or beside it.

        Args:
            folder: Folder of config.json and safetensors files.
            config: Config that replaces the folder's, for other added parts or for sizes it does not state.
            text: Text codec that replaces the config's: "bytes", "phones" or the path of a tokenizer.json.
                None takes the folder's tokenizer.json; a public layout without one takes no text.
            dtype: Type of the parameters.

        Returns:
            The model in eval mode.

        Raises:
            ValueError: The folder holds no model, its config cannot be read, or keys are missing, unknown or
                of another shape: all of them are listed.
        """
        return checkpoints.load(cls, folder, config=config, text=text, dtype=dtype)

    def _texts(self, text_tokens: Tensor | Sequence[str]) -> list[str]:
        return checked_texts(text_tokens, self.codec, self.text_embedding.num_embeddings)
