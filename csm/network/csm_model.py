"""CSMModel: one set of weights that hears, reads, speaks and writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from csm.network.backbone import Backbone, ReadingKeys
from csm.network.cross_attention import SLOTS, SourceEncoder, pack_reading
from csm.network.cross_entropy import Head, linear_cross_entropy
from csm.network.depth_decoder import DepthDecoder
from csm.network.latent import LatentRefiner, LatentSpread
from csm.network.layers import PackedSequences, constants_device, feed_forward_width
from csm.network.memory import ConversationMemory, MemoryState
from csm.network.model_config import CSMConfig
from csm.network.pace import PaceHead
from csm.sequences.frames import IGNORE, CrossSpan, PastTurns, RowBatch, RowBuilder, TurnFrames
from csm.text import PAD, ByteCodec, TextCodec, text_codec


@dataclass
class CSMOutput:
    """What a forward pass gives; fields that were not asked for are None.

    Attributes:
        codebook0_logits: [A, V], for every row that is followed by a voice frame or an end row.
        depth_logits: [F, K - 1, V], for the frames the depth decoder was run on.
        text_logits: [L, W], for every row that is followed by text to be written.
        codebook0_nats, depth_nats, text_nats: Cross-entropies instead of logits, where they were asked for:
            sums over the same rows, [], [K - 1] (by codebook) and [].
        prosody: [A, 3] log-F0, voicing logit, log energy of the frame that follows.
        duration: [U], log frames of each spoken turn.
        pace: [P], log frames of every text id that is aligned.
        latent, refined: [T, latent_dim] of every frame that follows, before and after its first code is
            known; None in a model without latent_dim.
        voice_codes: int64 [B, K, T], generated voice (padded with the end code), where only text was given.
        text_tokens: list of generated texts, where only voice was given.
    """

    codebook0_logits: Tensor | None = None
    depth_logits: Tensor | None = None
    text_logits: Tensor | None = None
    codebook0_nats: Tensor | None = None
    depth_nats: Tensor | None = None
    text_nats: Tensor | None = None
    prosody: Tensor | None = None
    duration: Tensor | None = None
    pace: Tensor | None = None
    latent: Tensor | None = None
    refined: Tensor | None = None
    voice_codes: Tensor | None = None
    text_tokens: list[str] | None = None


class CSMModel(nn.Module):
    """Backbone over rows, depth decoder over codebooks, reading across modalities, memory of past turns.

    Args:
        config: Sizes.
        d_model, n_layers, n_heads: Shortcuts that replace the config's fields.

    Raises:
        ValueError: Sizes that do not fit each other, or a text codec that is not there.
    """

    codebook_offsets: Tensor
    code_vectors: Tensor | None
    latent_mean: Tensor | None
    latent_gain: Tensor | None

    def __init__(
        self,
        config: CSMConfig | None = None,
        *,
        d_model: int | None = None,
        n_layers: int | None = None,
        n_heads: int | None = None,
    ) -> None:
        super().__init__()
        given = {"d_model": d_model, "n_layers": n_layers, "n_heads": n_heads}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        self.config = c = dataclasses.replace(config or CSMConfig(), **changes)
        self.codec: TextCodec = text_codec(c.text, c.max_speakers)
        width, vocab = c.d_model, c.audio_vocab_size
        if 0 < c.text_vocab_size < self.codec.vocab_size:
            raise ValueError(
                f"text_vocab_size is {c.text_vocab_size}: expected 0 or at least {self.codec.vocab_size}, "
                f"the ids of the text codec {c.text!r}"
            )
        self.text_embedding = nn.Embedding(c.text_vocab_size or self.codec.vocab_size, width)
        # One table for all codebooks, shared with the depth decoder; row = code + codebook * vocab.
        self.audio_embedding = nn.Embedding(c.num_codebooks * vocab, width)
        self.backbone = Backbone(
            width=width,
            n_layers=c.n_layers,
            n_heads=c.n_heads,
            n_kv_heads=c.n_kv_heads or c.n_heads,
            hidden=c.d_ff or feed_forward_width(width),
            base=c.rope_base,
            scaling=c.rope_scaling,
            cross_layers=c.layers_of("cross_layers"),
            memory_layers=c.layers_of("memory_layers"),
            window=c.cross_window,
            slots=c.memory_slots,
            gate=c.gate,
            dropout=c.dropout,
        )
        self.depth_decoder = DepthDecoder(
            backbone_width=width,
            width=c.depth_d_model,
            n_layers=c.depth_n_layers,
            n_heads=c.depth_n_heads,
            n_kv_heads=c.depth_n_kv_heads or c.depth_n_heads,
            hidden=c.depth_d_ff or feed_forward_width(c.depth_d_model),
            num_codebooks=c.num_codebooks,
            vocab_size=vocab,
            base=c.rope_base,
            scaling=c.rope_scaling,
            dropout=c.dropout,
            cumulative=c.depth_inputs == "sum",
        )
        self.text_source, self.voice_source = SourceEncoder(width), SourceEncoder(width)
        self.text_slots = nn.Linear(SLOTS * width, width, bias=False)
        self.memory = ConversationMemory(width, c.memory_slots)
        self.codebook0_head = Head(width, vocab, bias=False)
        self.prosody_head = nn.Linear(width, 3)
        self.duration_head = nn.Linear(width, 1)
        self.pace_head = PaceHead(width)
        self.latent_head = nn.Linear(width, c.latent_dim) if c.latent_dim else None
        self.latent_embedding = nn.Linear(c.latent_dim, width, bias=False) if c.latent_dim else None
        self.latent_refiner = LatentRefiner(width, c.latent_dim) if c.latent_dim else None
        # What each code adds to a latent: `know_codes`.
        self.register_buffer("code_vectors", None, persistent=False)
        # How recorded latents are spread beside predicted ones: `know_spread`.
        self.register_buffer("latent_mean", torch.zeros(c.latent_dim) if c.latent_dim else None)
        self.register_buffer("latent_gain", torch.ones(c.latent_dim) if c.latent_dim else None)
        offsets = torch.arange(c.num_codebooks, device=constants_device()) * vocab
        self.register_buffer("codebook_offsets", offsets, persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        """Normal(0.02) as in GPT-2; what writes to the residual stream is scaled down by depth."""
        for name, parameter in self.named_parameters():
            if parameter.ndim >= 2 and "places" not in name and "heads" not in name.split("."):
                branch = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(parameter, std=0.02 / (2 * self.config.n_layers) ** 0.5 if branch else 0.02)
        # Turns of this language last about e^3.3 = 27 frames (2.2 s): the head starts there.
        nn.init.constant_(self.duration_head.bias, 3.3)
        heads = [self.pace_head.pace]
        if self.latent_head is not None and self.latent_refiner is not None:
            heads += [self.latent_head, self.latent_refiner.out]
        for head in heads:
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    # ---- rows ----

    def new_rows(self) -> RowBuilder:
        """An empty grid that fits this model."""
        c = self.config
        return RowBuilder(self.codec, c.num_codebooks, c.end_code, c.audio_vocab_size)

    def knows_durations(self) -> bool:
        """Whether the duration head says anything: all zero, as in a model of csm-1b's files, it does not."""
        return bool(self.duration_head.weight.any())

    def embed_codes(self, codes: Int[Tensor, "*R K"]) -> Float[Tensor, "*R K D"]:
        """Embeddings of codes of the first codebooks, one per codebook."""
        return self.audio_embedding(codes + self.codebook_offsets[: codes.shape[-1]])

    def embed_rows(self, text: Int[Tensor, " R"], codes: Int[Tensor, "R K"]) -> Float[Tensor, "R D"]:
        """Rows of the backbone's input: a text embedding, or the sum of a frame's code embeddings."""
        (frames,) = self.gather_sums(codes.clamp_min(0) + self.codebook_offsets)
        return self._text_or_frames(text, frames)

    def gather_sums(self, *indices: Int[Tensor, "N k"]) -> tuple[Float[Tensor, "N D"], ...]:
        """Sums of the audio table's rows at each row of indices, in one gather: one gradient of the table.

        Args:
            indices: int64 [N, k] each, places in the table (code + codebook * vocab), k of one sum.
        """
        sizes = [len(index) for index in indices]
        lengths = torch.cat([index.new_full((len(index),), index.shape[1]) for index in indices])
        places = torch.cat([index.flatten() for index in indices])
        sums = F.embedding_bag(places, self.audio_embedding.weight, lengths.cumsum(0) - lengths, mode="sum")
        return sums.split(sizes)

    def _text_or_frames(self, text: Int[Tensor, " R"], frames: Float[Tensor, "R D"]) -> Float[Tensor, "R D"]:
        is_text = text >= 0
        words = self.text_embedding(text.clamp_min(0))
        if self.training and self.config.frame_dropout:
            frames = frames * (torch.rand_like(frames[:, :1]) >= self.config.frame_dropout)
        return torch.where(is_text.unsqueeze(1), words, frames.to(words.dtype))

    def reading_keys(
        self, rows: Float[Tensor, "R D"], batch: RowBatch, *, voice_reads: bool
    ) -> ReadingKeys | None:
        """What one direction reads in this batch: voice the text, or text the voice."""
        reading = pack_reading(
            batch.spans,
            voice_reads=voice_reads,
            query_pace=1.0 if voice_reads else self.config.frames_per_text_id,
            window=self.config.cross_window,
            device=rows.device,
        )
        if reading is None or not self.backbone.voice_reads:
            return None
        source = (self.text_source if voice_reads else self.voice_source)(rows[reading.keys], reading)
        assert reading.source is not None
        if reading.source.spread is not None:
            # Who speaks, beside every frame: a speaker's one row is far from most of them.
            told = reading.source.speakers >= 0
            speakers = self.text_embedding(reading.source.speakers.clamp_min(0))
            source = self.text_slots(reading.source.spread(source)) + speakers * told.unsqueeze(1)
        reading = reading._replace(source=None)
        return self.backbone.reading_keys(source, reading, voice_reads=voice_reads)

    @torch.no_grad()
    def correct_lengths(self, duration: float, pace: float) -> None:
        """Takes from what the two heads say of a turn's length what each says too much, in log frames.

        The head of paces learns medians, whose sum is less than the turn's length; in proportion its ids stay
        as they are.
        """
        self.duration_head.bias.sub_(duration)
        self.pace_head.pace.bias.sub_(pace)

    def text_pace(self, hidden: Float[Tensor, "R D"], batch: RowBatch) -> Float[Tensor, " P"]:
        """Log frames of the text ids that the batch knows them of, from the backbone's rows."""
        # One row at least: ranks must run the same operations on any batch (see hidden_rows).
        spans = [s for s in batch.spans if s.voice_reads and s.num_keys] or [CrossSpan(0, 0, 0, 1, 1, True)]
        rows = torch.cat([torch.arange(s.first_key, s.first_key + s.num_keys) for s in spans])
        counts = torch.tensor([s.num_keys for s in spans])
        starts = F.pad(counts.cumsum(0), (1, 0)).to(torch.int32).to(hidden.device)
        rows = rows.to(hidden.device)
        pace = self.pace_head(hidden[rows], PackedSequences(starts, int(counts.max())))
        return pace[~batch.pace_target[rows].isnan()]

    def depth_row(self, hidden: Float[Tensor, "*F D"]) -> Float[Tensor, "*F D"]:
        """What position 0 of the depth decoder reads of the backbone's rows.

        In sums it is no larger than what is added to it, and begins with minus the predicted latent: codes'
        embeddings add up to what is still missing.
        """
        if self.config.depth_inputs == "last":
            return hidden
        row = hidden * hidden.shape[-1] ** -0.5
        if self.latent_head is not None and self.latent_embedding is not None:
            row = row - self.latent_embedding(self.latent_head(hidden))
        return row

    def refined_latent(self, hidden: Float[Tensor, "F D"], first: Int[Tensor, " F"]) -> Float[Tensor, "F L"]:
        """The mean latent of frames after the backbone's rows that begin with these codes."""
        assert self.latent_head is not None and self.latent_refiner is not None
        return self.latent_head(hidden) + self.latent_refiner(hidden, self.audio_embedding(first))

    def know_codes(self, vectors: Float[Tensor, "K V L"]) -> None:
        """Takes in what each code adds to a latent (`latent_vectors`), to tell codes of a predicted latent.

        Raises:
            ValueError: Not of this model's codebooks or latent.
        """
        c = self.config
        expected = (c.num_codebooks, c.codebook_size, c.latent_dim)
        if vectors.shape != expected:
            raise ValueError(f"code vectors have shape {tuple(vectors.shape)}: expected {expected}")
        self.code_vectors = vectors.to(self.audio_embedding.weight.device)

    def know_spread(self, spread: LatentSpread) -> None:
        """Takes in how recorded latents are spread, which `spread_out` gives back to predicted ones.

        Raises:
            ValueError: Not of this model's latent.
        """
        if (
            self.latent_mean is None
            or self.latent_gain is None
            or spread.mean.shape != self.latent_mean.shape
        ):
            raise ValueError(
                f"the spread is of latents of width {len(spread.mean)}: expected {self.config.latent_dim}"
            )
        self.latent_mean.copy_(spread.mean)
        self.latent_gain.copy_(spread.gain)

    def spread_out(self, latent: Float[Tensor, "F L"], share: float) -> Float[Tensor, "F L"]:
        """Predicted latents with a share, 0 to 1, of the spread that recorded ones have more."""
        if not share or self.latent_mean is None or self.latent_gain is None:
            return latent
        return self.latent_mean + self.latent_gain**share * (latent - self.latent_mean)

    def turn_vectors(self, past: PastTurns) -> tuple[Float[Tensor, "P D"], Float[Tensor, "P D"]]:
        """The semantic and the style vector of each past turn."""
        parts = self.embed_codes(past.codes)
        # A model of fewer codebooks than the semantic ones has no acoustic part: there all codes tell the
        # style.
        cut = self.config.semantic_codebooks if self.config.semantic_codebooks < parts.shape[1] else 0
        semantic = parts[:, : self.config.semantic_codebooks].sum(dim=1)
        words, speaker = self.text_embedding(past.text), self.text_embedding(past.speaker)
        return self.memory.writer(past, words, semantic, parts[:, cut:].sum(dim=1), speaker)

    def remember(self, past: PastTurns) -> MemoryState | None:
        """The memory of every sequence of a batch; None where the model has no memory layers."""
        if not self.backbone.memory_reads:
            return None
        semantic, style = (
            torch.where(past.learns.unsqueeze(1), vectors, vectors.detach())
            for vectors in self.turn_vectors(past)
        )
        return self.memory.fold(past, semantic, style)

    # ---- training ----

    def forward(
        self,
        text_tokens: Tensor | Sequence[str] | None = None,
        voice_codes: Int[Tensor, "B K T"] | None = None,
        *,
        batch: RowBatch | None = None,
        label_smoothing: float | None = None,
    ) -> CSMOutput:
        """Teacher-forced outputs of text and voice together; with one of them alone, generates the other.

        Args:
            text_tokens: Texts, or byte ids int64 [B, L] padded with 256.
            voice_codes: int64 [B, K, T] with K at least `num_codebooks`.
            batch: Prepared rows, as the training uses them; excludes the other two.
            label_smoothing: With a number (0 too), a batch gives cross-entropies with this smoothing instead
                of logits, which are never formed whole.

        Raises:
            ValueError: Nothing or too much was given, an empty text, a wrong shape, codes out of range, or a
                sequence beyond max_context.
        """
        if batch is not None:
            if text_tokens is not None or voice_codes is not None:
                raise ValueError(
                    "got batch together with text_tokens or voice_codes: expected one or the other"
                )
            return self.forward_rows(batch, label_smoothing)
        if text_tokens is None and voice_codes is None:
            raise ValueError("expected text_tokens, voice_codes, both, or batch; got none")
        texts = None if text_tokens is None else self._texts(text_tokens)
        if voice_codes is not None:
            self._check_codes(voice_codes)
        if texts is not None and voice_codes is not None:
            return self.forward_rows(self.pair_rows(texts, voice_codes))
        # Imported here: generation is built on the model, not the other way round.
        from csm.generation.one_turn import transcribe, voice

        if texts is not None:
            return CSMOutput(voice_codes=voice(self, texts))
        assert voice_codes is not None
        return CSMOutput(text_tokens=transcribe(self, voice_codes))

    def pair_rows(self, text_tokens: Tensor | Sequence[str], voice_codes: Int[Tensor, "B K T"]) -> RowBatch:
        """The rows of `forward(text_tokens, voice_codes)`: every item once spoken, once heard and written.

        Raises:
            ValueError: As `forward`, or not as many texts as voices.
        """
        texts = self._texts(text_tokens)
        self._check_codes(voice_codes)
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
            rows.add_heard(turn)
        return rows.build().to(self.audio_embedding.weight.device)

    def forward_rows(self, batch: RowBatch, label_smoothing: float | None = None) -> CSMOutput:
        """Teacher-forced outputs for prepared rows; `forward` says what label_smoothing does.

        Raises:
            ValueError: A sequence beyond max_context.
        """
        if batch.longest > self.config.max_context:
            raise ValueError(
                f"a sequence has {batch.longest} rows, the model's max_context is {self.config.max_context}: "
                f"cut the conversation into shorter chunks; what came before goes to the memory"
            )
        speaks = batch.code_target[:, 0] != IGNORE
        depth_rows = self.depth_rows(batch)
        target = batch.code_target[depth_rows]
        heard, codes = self.gather_sums(
            batch.codes.clamp_min(0) + self.codebook_offsets,
            (target[:, :-1] + self.codebook_offsets[:-1]).view(-1, 1),
        )
        hidden = self.hidden_rows(batch, self._text_or_frames(batch.text, heard))
        writes = batch.text_target != IGNORE
        spoken, written = hidden[speaks], hidden[writes]
        frames = (
            self.depth_row(hidden[depth_rows]),
            codes.view(len(target), self.config.num_codebooks - 1, codes.shape[1]),
        )
        output = CSMOutput(
            prosody=self.prosody_head(spoken),
            duration=self.duration_head(hidden[~batch.duration_target.isnan()])[:, 0],
            pace=self.text_pace(hidden, batch),
        )
        if self.latent_head is not None:
            follows = batch.code_target[:, 1] != IGNORE
            output.latent = self.latent_head(hidden[follows])
            output.refined = self.refined_latent(hidden[follows], batch.code_target[follows, 0])
        if label_smoothing is None:
            output.codebook0_logits = self.codebook0_head(spoken)
            output.depth_logits = self.depth_decoder(*frames)
            output.text_logits = F.linear(written, self.text_embedding.weight)
            return output
        first, text = batch.code_target[speaks, 0], batch.text_target[writes]
        output.codebook0_nats = self.codebook0_head(spoken, first, label_smoothing)
        output.depth_nats = self.depth_decoder(*frames, target[:, 1:], label_smoothing)
        table = self.text_embedding.weight.T
        output.text_nats = linear_cross_entropy(written[None], table[None], text[None], label_smoothing)[0]
        return output

    def hidden_rows(self, batch: RowBatch, rows: Float[Tensor, "R D"] | None = None) -> Float[Tensor, "R D"]:
        """The backbone's normalised rows; `rows` are the batch's embedded ones, where they are known."""
        if rows is None:
            rows = self.embed_rows(batch.text, batch.codes)
        attend = PackedSequences(batch.cu_seqlens, batch.longest)
        # Both directions always run, if only over a reading without queries: ZeRO adds up the gradients of
        # the ranks in the order in which they come, so all must run the same operations on any batch.
        idle = [CrossSpan(0, 0, 0, 1, 1, voice_reads) for voice_reads in (True, False)]
        batch = replace(batch, spans=[*batch.spans, *idle])
        return self.backbone(
            rows,
            batch.positions,
            attend,
            voice_keys=self.reading_keys(rows, batch, voice_reads=True),
            text_keys=self.reading_keys(rows, batch, voice_reads=False),
            memory=self.remember(batch.past),
        )

    @staticmethod
    def depth_rows(batch: RowBatch) -> Int[Tensor, " F"]:
        """Rows whose following frame the depth decoder is trained on."""
        if batch.depth_rows is not None:
            return batch.depth_rows
        return (batch.code_target[:, 1] != IGNORE).nonzero()[:, 0]

    # ---- files ----

    def save_pretrained(
        self,
        folder: Path | str,
        layout: Literal["csm", "transformers", "sesame"] = "csm",
        *,
        half: bool = False,
        codec_from: Path | str | None = None,
        shard_bytes: int = 50 * 10**9,
    ) -> None:
        """Writes config.json and the weights, in more than one file where they are large; makes the folder.

        Args:
            folder: A tokenizer.json that the config names is copied there.
            layout: "csm" keeps everything; the two public layouts of csm-1b hold what csm-1b has.
            half: In half precision, the large tables of codes in 8 bits; of layout "csm" alone.
            codec_from: A folder of transformers' CSM whose Mimi goes along; for layout "transformers".
            shard_bytes: Most bytes of one weight file (a larger tensor has one of its own).

        Raises:
            ValueError: The layout has no place for what this model computes.
        """
        # Imported here: files are built on the model, not the other way round.
        from csm.network import checkpoints

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

        Of the public layouts, parts that csm-1b lacks are added with closed gates: the model computes csm-1b
        bit for bit until it is trained on. Peak memory is one copy of the weights.

        Args:
            folder: With config.json and safetensors files.
            config: Replaces the folder's, for other added parts or for sizes that it does not tell.
            text: Replaces the config's text codec: "bytes", "phones" or the path of a tokenizer.json. None
                takes the folder's tokenizer.json; without one, a public layout's model takes no text.
            dtype: Of the parameters.

        Returns:
            The model in eval mode.

        Raises:
            ValueError: No model there, a config that cannot be read, or keys that are missing, unknown or of
                another shape: all of them are listed.
        """
        from csm.network import checkpoints

        return checkpoints.load(folder, config=config, text=text, dtype=dtype)

    # ---- input checks ----

    def _texts(self, text_tokens: Tensor | Sequence[str]) -> list[str]:
        if isinstance(text_tokens, str):
            raise ValueError("text_tokens is one string: expected a list of texts, or int64 [B, L]")
        if not isinstance(text_tokens, Tensor):
            texts = list(text_tokens)
        elif text_tokens.ndim == 2 and not text_tokens.is_floating_point():
            low, high = (int(text_tokens.min()), int(text_tokens.max())) if text_tokens.numel() else (0, 0)
            vocab_size = self.codec.vocab_size or self.text_embedding.num_embeddings
            if low < 0 or high >= vocab_size:
                raise ValueError(f"text_tokens range over {low}..{high}: expected 0..{vocab_size - 1}")
            # Other codecs pad with a control id, which decodes to nothing; their 256 is text.
            pad = PAD if isinstance(self.codec, ByteCodec) else -1
            texts = [self.codec.decode([i for i in row if i != pad]) for row in text_tokens.tolist()]
        else:
            raise ValueError(
                f"text_tokens have shape {tuple(text_tokens.shape)} and type {text_tokens.dtype}: expected "
                f"int64 [B, L]"
            )
        empty = [i for i, text in enumerate(texts) if not text.strip()]
        if empty or not texts:
            raise ValueError(f"text of items {empty} is empty: expected something to say in each")
        return texts

    def _check_codes(self, codes: Tensor) -> None:
        c = self.config
        whole = not (codes.is_floating_point() or codes.dtype == torch.bool)
        if codes.ndim != 3 or codes.shape[1] < c.num_codebooks or codes.numel() == 0 or not whole:
            raise ValueError(
                f"voice_codes have shape {tuple(codes.shape)} and type {codes.dtype}: expected int64 [B, K, "
                f"T] with K >= {c.num_codebooks} and at least one frame"
            )
        low, high = int(codes.min()), int(codes.max())
        if low < 0 or high >= c.codebook_size:
            raise ValueError(f"voice_codes range over {low}..{high}: expected 0..{c.codebook_size - 1}")
