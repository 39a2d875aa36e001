"""The network: a packed batch of rows in, teacher-forced logits or cross-entropies out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, TypedDict, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from csm.network.backbone import Backbone
from csm.network.batch_layout import BatchLayout, PaceRows, SummedCodes, batch_layout, summed_codes
from csm.network.cross_attention import ReadingLayout, SourceEncoder
from csm.network.cross_entropy import Head, linear_cross_entropy
from csm.network.depth_decoder import DepthDecoder
from csm.network.initialise import branch_std, draw
from csm.network.letter_head import LetterHead
from csm.network.memory import ConversationMemory, Folding, MemoryState
from csm.network.model_config import CSMConfig
from csm.network.outputs import CSMCrossEntropies, CSMLogits
from csm.network.phone_durations import PhoneDurationHead
from csm.network.predicted_latent import PredictedLatent, ResidualLatentHead
from csm.network.rotary import constants_device
from csm.network.text_frame_alignment import SUBFRAMES
from csm.network.text_reading import TextReading, text_layout
from csm.network.voice_reading import VoiceLayout, VoiceReading
from csm.sequences.one_copy import moved
from csm.sequences.packed_batch import RowBatch, TextSpan, VoiceSpan
from csm.sequences.past_turns import PastTurns
from csm.sequences.row_builder import RowBuilder
from csm.text import TextCodec, text_codec


class _Regressions(TypedDict):
    prosody: Tensor
    duration: Tensor
    pace: Tensor
    latent: Tensor | None
    refined: Tensor | None
    letters: Tensor | None


class _Inputs(NamedTuple):
    """Inputs of the heads of codes and text: backbone rows before each target, and the depth decoder's."""

    voice: Float[Tensor, "A D"]
    text: Float[Tensor, "L D"]
    depth: Float[Tensor, "F D"]
    code_embeddings: Float[Tensor, "F K1 D"]


class ConversationNetwork(nn.Module):
    """Backbone over rows, depth decoder over codebooks, cross-attention of voice and text, memory of turns.

    It has no `forward`: `logits` and `cross_entropies` are two methods, and CSMModel chooses between them.

    Args:
        config: Sizes of the model.

    Attributes:
        float8_heads: Whether training multiplies by the heads of codes and text in float8.

    Raises:
        ValueError: The vocabulary is smaller than the text codec's, or there is no such text codec.
    """

    codebook_offsets: Tensor
    code_vectors: Tensor | None
    latent_mean: Tensor | None
    latent_gain: Tensor | None

    def __init__(self, config: CSMConfig) -> None:
        super().__init__()
        self.config = c = config
        self.float8_heads = False
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
        self.backbone = Backbone(c)
        self.depth_decoder = DepthDecoder(c)
        self.text_source, self.voice_source = SourceEncoder(width), SourceEncoder(width)
        self.text_slots = nn.Linear(SUBFRAMES * width, width, bias=False)
        self.memory = ConversationMemory(width, c.memory_slots)
        self.codebook0_head = Head(width, vocab, bias=False)
        self.prosody_head = nn.Linear(width, 3)
        self.duration_head = nn.Linear(width, 1)
        self.pace_head = PhoneDurationHead(width)
        self.latent_head = nn.Linear(width, c.latent_dim) if c.latent_dim else None
        self.latent_embedding = nn.Linear(c.latent_dim, width, bias=False) if c.latent_dim else None
        self.latent_refiner = ResidualLatentHead(width, c.latent_dim) if c.latent_dim else None
        # Initialised last, so that adding it does not change the random numbers of other modules.
        self.letter_head = LetterHead(width, c.letters_per_frame) if c.letters_per_frame else None
        self.register_buffer("code_vectors", None, persistent=False)
        self.register_buffer("latent_mean", torch.zeros(c.latent_dim) if c.latent_dim else None)
        self.register_buffer("latent_gain", torch.ones(c.latent_dim) if c.latent_dim else None)
        offsets = torch.arange(c.num_codebooks, device=constants_device()) * vocab
        self.register_buffer("codebook_offsets", offsets, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the initial weights, in the order of the modules."""
        std = branch_std(self.config.n_layers)
        draw(self.text_embedding, self.audio_embedding)
        self.backbone.reset_parameters(std)
        self.depth_decoder.reset_parameters(std)
        self.text_source.reset_parameters()
        self.voice_source.reset_parameters()
        draw(self.text_slots)
        self.memory.writer.reset_parameters()
        draw(self.codebook0_head, self.prosody_head, self.duration_head)
        # Turns of the packaged corpus have a geometric mean of 2.2 s, about 27 frames; exp(3.3) = 27.
        nn.init.constant_(self.duration_head.bias, 3.3)
        self.pace_head.reset_parameters()
        if self.predicted_latent is not None:
            self.predicted_latent.reset_parameters()
        if self.letter_head is not None:
            self.letter_head.reset_parameters()

    # ---- batches ----

    def new_rows(self) -> RowBuilder:
        """Returns an empty builder of batches that fit this network."""
        c = self.config
        return RowBuilder(self.codec, c.num_codebooks, c.end_code, c.audio_vocab_size)

    def logits(self, batch: RowBatch) -> CSMLogits:
        """Returns the logits of every target of a batch.

        Raises:
            ValueError: A sequence is longer than max_context.
        """
        batch = self.with_layout(batch)
        inputs, regressions = self._run(batch)
        return CSMLogits(
            codebook0=self.codebook0_head(inputs.voice),
            depth=self.depth_decoder(inputs.depth, inputs.code_embeddings),
            text=F.linear(inputs.text, self.text_embedding.weight),
            **regressions,
        )

    def cross_entropies(self, batch: RowBatch, label_smoothing: float = 0.0) -> CSMCrossEntropies:
        """Returns the cross-entropies of the targets of a batch; the logits are never formed as a whole.

        Args:
            batch: Rows with targets.
            label_smoothing: Share of a target's probability that is distributed over all classes.

        Raises:
            ValueError: A sequence is longer than max_context.
        """
        batch = self.with_layout(batch)
        inputs, regressions = self._run(batch)
        rows, table = batch.target_rows(), self.text_embedding.weight.T
        code0 = batch.code_target[:, 0].index_select(0, rows.voice)
        later = batch.code_target.index_select(0, rows.depth)[:, 1:]
        text = batch.text_target.index_select(0, rows.text)
        padded = cast(BatchLayout, batch.layout).padded
        options = label_smoothing, padded, self.float8_heads and self.training
        return CSMCrossEntropies(
            codebook0=self.codebook0_head(inputs.voice, code0, *options),
            depth=self.depth_decoder(inputs.depth, inputs.code_embeddings, later, *options),
            text=linear_cross_entropy(inputs.text[None], table[None], text[None], *options)[0],
            **regressions,
        )

    def layout(self, batch: RowBatch) -> BatchLayout:
        """Returns the index structures of a batch on the CPU, to be kept in `batch.layout`."""
        return batch_layout(batch.to(torch.device("cpu")), self.config)

    def with_layout(self, batch: RowBatch) -> RowBatch:
        """Returns a batch with its index structures; one without them makes the host wait for its device."""
        if batch.layout is not None:
            return batch
        return replace(batch, layout=moved(self.layout(batch), batch.text.device))

    def _run(self, batch: RowBatch) -> tuple[_Inputs, _Regressions]:
        """Runs the backbone and the heads of regressions over a batch that has its layout."""
        if batch.longest > self.config.max_context:
            raise ValueError(
                f"a sequence has {batch.longest} rows, the model's max_context is {self.config.max_context}: "
                f"cut the conversation into shorter chunks; what came before goes to the memory"
            )
        layout = cast(BatchLayout, batch.layout)
        rows = layout.targets
        frames, codes = self.gather_sums(layout.codes)
        hidden = self.hidden_rows(batch, self._text_or_frames(batch.text, frames, layout.heard.rows))
        voice = hidden.index_select(0, rows.voice)
        depth = hidden.index_select(0, rows.depth)
        inputs = _Inputs(
            voice=voice,
            text=hidden.index_select(0, rows.text),
            depth=self.depth_row(depth),
            code_embeddings=codes.view(len(depth), self.config.num_codebooks - 1, codes.shape[1]),
        )
        regressions: _Regressions = {
            "prosody": self.prosody_head(voice),
            "duration": self.duration_head(hidden.index_select(0, rows.duration))[:, 0],
            "pace": self._phone_durations(hidden, layout.pace),
            "latent": None,
            "refined": None,
            "letters": None
            if self.letter_head is None
            else self.letter_head(hidden.index_select(0, layout.heard.rows), layout.heard.turns),
        }
        if (latent := self.predicted_latent) is not None:
            before = hidden.index_select(0, rows.frames)
            regressions["latent"] = latent.head(before)
            code0 = batch.code_target[:, 0].index_select(0, rows.frames)
            code0 = code0.clamp_min(0) if layout.padded else code0
            regressions["refined"] = latent.given_code0(before, self.audio_embedding(code0))
        return inputs, regressions

    def hidden_rows(self, batch: RowBatch, rows: Float[Tensor, "R D"] | None = None) -> Float[Tensor, "R D"]:
        """Returns the backbone's normalised rows; `rows` are the embedded ones, if already computed."""
        batch = self.with_layout(batch)
        layout = cast(BatchLayout, batch.layout)
        if rows is None:
            rows = self.embed_rows(batch.text, batch.codes)
        # Always runs both readings, so that every rank produces its gradients in the same order.
        return self.backbone(
            rows,
            batch.positions,
            layout.sequences,
            voice=self._voice_reading(rows, layout.voice),
            text=self._text_reading(rows, layout.text),
            memory=self.remember(batch.past, layout.folding),
        )

    # ---- embeddings ----

    def embed_codes(self, codes: Int[Tensor, "*R K"]) -> Float[Tensor, "*R K D"]:
        """Returns the embeddings of codes of the first codebooks, one per codebook."""
        return self.audio_embedding(codes + self.codebook_offsets[: codes.shape[-1]])

    def embed_rows(self, text: Int[Tensor, " R"], codes: Int[Tensor, "R K"]) -> Float[Tensor, "R D"]:
        """Returns rows of the backbone's input: a text embedding, or the sum of a frame's code embeddings."""
        (frames,) = self.gather_sums(summed_codes(codes.clamp_min(0) + self.codebook_offsets))
        return self._text_or_frames(text, frames)

    def gather_sums(self, codes: SummedCodes) -> tuple[Float[Tensor, "N D"], ...]:
        """Sums rows of the audio table, in one gather: one gradient of the table."""
        sums = F.embedding_bag(codes.places, self.audio_embedding.weight, codes.starts, mode="sum")
        return sums.split(codes.sizes)

    def _text_or_frames(
        self, text: Int[Tensor, " R"], frames: Float[Tensor, "R D"], heard: Int[Tensor, " N"] | None = None
    ) -> Float[Tensor, "R D"]:
        """Embeds rows.

        Training hides a share of the frames, but none of transcribed turns: their text depends on them alone.
        """
        is_text = text >= 0
        words = self.text_embedding(text.clamp_min(0))
        if self.training and self.config.frame_dropout:
            kept = torch.rand_like(frames[:, :1]) >= self.config.frame_dropout
            frames = frames * (kept if heard is None else kept.index_fill(0, heard, True))
        return torch.where(is_text.unsqueeze(1), words, frames.to(words.dtype))

    # ---- readings of the other modality, and the memory ----

    def voice_reading(self, rows: Float[Tensor, "R D"], spans: Sequence[VoiceSpan]) -> VoiceReading | None:
        """Returns what voice rows read of these embedded rows; None without cross-attention layers."""
        if not spans or not self.backbone.voice_layers():
            return None
        return self._voice_reading(rows, moved(VoiceLayout.of(spans, self.config.cross_window), rows.device))

    def _voice_reading(self, rows: Float[Tensor, "R D"], layout: VoiceLayout) -> VoiceReading | None:
        if not (layers := self.backbone.voice_layers()):
            return None
        encoded = self.text_source(rows.index_select(0, layout.read), layout.sequences)
        # Adds the speaker embedding at every frame: the single speaker position is too far away to be
        # attended to reliably.
        speakers = self.text_embedding(layout.speakers) * layout.spoken
        source = self.text_slots(layout.alignment(encoded)) + speakers
        return VoiceReading.of(layout, source, layers, self.config.cross_window)

    def text_reading(self, rows: Float[Tensor, "R D"], spans: Sequence[TextSpan]) -> TextReading | None:
        """Returns what text rows read of these embedded rows; None without cross-attention layers."""
        if not spans or not self.backbone.text_layers():
            return None
        layout = text_layout(spans, self.config.frames_per_text_id)
        return self._text_reading(rows, moved(layout, rows.device))

    def _text_reading(self, rows: Float[Tensor, "R D"], layout: ReadingLayout) -> TextReading | None:
        if not (layers := self.backbone.text_layers()):
            return None
        source = self.voice_source(rows.index_select(0, layout.read), layout.sequences)
        return TextReading.of(layout, source, layers, self.config.frames_per_text_id)

    def turn_vectors(self, past: PastTurns) -> tuple[Float[Tensor, "P D"], Float[Tensor, "P D"]]:
        """Returns the semantic and the style vector of each past turn."""
        parts = self.embed_codes(past.codes)
        # A model without acoustic codebooks takes the style from all of its codes.
        cut = self.config.semantic_codebooks if self.config.semantic_codebooks < parts.shape[1] else 0
        semantic = parts[:, : self.config.semantic_codebooks].sum(dim=1)
        words, speaker = self.text_embedding(past.text), self.text_embedding(past.speaker)
        return self.memory.writer(past, words, semantic, parts[:, cut:].sum(dim=1), speaker)

    def remember(self, past: PastTurns, folding: Folding | None = None) -> MemoryState | None:
        """Returns the memory of every sequence of a batch; None without memory layers."""
        if not self.backbone.memory_reads:
            return None
        semantic, style = (
            torch.where(past.learns.unsqueeze(1), vectors, vectors.detach())
            for vectors in self.turn_vectors(past)
        )
        return self.memory.fold(folding or Folding.of(past, self.config.memory_slots), semantic, style)

    # ---- the predicted latent ----

    @property
    def predicted_latent(self) -> PredictedLatent | None:
        """The parts that predict the latent of the next frame; None in a model without latent_dim."""
        if self.latent_head is None:
            return None
        assert self.latent_embedding is not None and self.latent_refiner is not None
        assert self.latent_mean is not None and self.latent_gain is not None
        return PredictedLatent(
            self.latent_head,
            self.latent_embedding,
            self.latent_refiner,
            self.latent_mean,
            self.latent_gain,
            self.code_vectors,
        )

    def set_code_vectors(self, vectors: Float[Tensor, "K V L"]) -> None:
        """Sets what each code adds to a latent (`latent_vectors`); not part of the state dict.

        Raises:
            ValueError: The vectors are of other codebooks or of another latent.
        """
        c = self.config
        expected = (c.num_codebooks, c.codebook_size, c.latent_dim)
        if vectors.shape != expected:
            raise ValueError(
                f"code vectors have shape {tuple(vectors.shape)}: expected {expected}; take those of the "
                f"model's own tokenizer"
            )
        self.code_vectors = vectors.to(self.audio_embedding.weight.device)

    def depth_row(self, hidden: Float[Tensor, "*F D"]) -> Float[Tensor, "*F D"]:
        """Returns what position 0 of the depth decoder reads for hidden rows of the backbone.

        With `depth_inputs` "sum" the hidden state is scaled by d_model**-0.5 and the predicted latent is
        subtracted, so that the depth decoder models what the codes still have to add.
        """
        if self.config.depth_inputs == "last":
            return hidden
        row = hidden * hidden.shape[-1] ** -0.5
        latent = self.predicted_latent
        return row if latent is None else latent.subtract(row, hidden)

    # ---- durations ----

    def predicts_durations(self) -> bool:
        """Returns whether the duration head is trained: it is all zero in a model of csm-1b's files."""
        return bool(self.duration_head.weight.any())

    @torch.no_grad()
    def subtract_length_bias(self, duration: float, pace: float) -> None:
        """Subtracts each head's mean bias (log frames) from its predictions of a turn's length.

        The phone duration head is trained to medians, whose sum is less than the turn's length; the ratios of
        its durations stay.
        """
        self.duration_head.bias.sub_(duration)
        self.pace_head.pace.bias.sub_(pace)

    def _phone_durations(self, hidden: Float[Tensor, "R D"], pace: PaceRows) -> Float[Tensor, " P"]:
        """Returns log frames of the text ids that are aligned, from the backbone's rows."""
        found = self.pace_head(hidden.index_select(0, pace.rows), pace.sequences)
        return found.index_select(0, pace.known)
