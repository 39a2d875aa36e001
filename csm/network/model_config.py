"""Sizes of a CSMModel, and which of them fit each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from csm.text import BUILT_IN, MAX_SPEAKERS

DepthInputs = Literal["last", "sum"]


class TransformerShape(NamedTuple):
    """Sizes of a Llama transformer: layers, width, heads, heads of keys and values, feed-forward width."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    hidden: int


def feed_forward_width(width: int) -> int:
    """Returns 8/3 of the width, rounded up to a multiple of 64: the parameters of a plain layer of 4x."""
    return -(-8 * width // 3 // 64) * 64


@dataclass(frozen=True, kw_only=True)
class CSMConfig:
    """Sizes of a CSMModel.

    Attributes:
        d_model: Width of the backbone's hidden states, a multiple of 2 n_heads.
        n_layers: Number of layers of the backbone.
        n_heads: Number of attention heads of each backbone layer.
        n_kv_heads: Number of key and value heads of each backbone layer, a divisor of n_heads; 0: n_heads.
        d_ff: Hidden width of the backbone's feed-forward layers; 0: 8/3 of d_model, rounded up to a multiple
            of 64.
        depth_d_model: Width of the depth decoder's hidden states, a multiple of 2 depth_n_heads.
        depth_n_layers: Number of layers of the depth decoder.
        depth_n_heads: Number of attention heads of each layer of the depth decoder.
        depth_n_kv_heads: Number of key and value heads of each layer of the depth decoder, a divisor of
            depth_n_heads; 0: depth_n_heads.
        depth_d_ff: Hidden width of the depth decoder's feed-forward layers; 0: 8/3 of depth_d_model, rounded
            up to a multiple of 64.
        depth_inputs: Input of a position of the depth decoder: "last", the embedding of the code before it,
            as in csm-1b; "sum", the backbone's row plus the embeddings of all codes before it.
        latent_dim: Width of the tokenizer's latent, which the backbone also predicts as a whole; the depth
            decoder reads its residual: the sum of the codes so far minus the predicted latent, both embedded.
            0: no prediction; above 0 needs depth_inputs "sum".
        num_codebooks: Number of the tokenizer's first codebooks that are modelled, at least 2.
        semantic_codebooks: Number of semantic codebooks among the modelled ones, 1 to num_codebooks.
        codebook_size: Number of codes per codebook, as in the tokenizer.
        extra_codes: Number of entries of each codebook's vocabulary beyond the codes; the first of them ends
            a turn.
        zeros_end: Whether a turn ends with a row of zeros instead of an end code, as in csm-1b.
        text: Text codec: "bytes", "phones" (pronunciation of English), "emphasis" (phones, and words in
            capitals are emphasised), the path of a tokenizer.json, or "none" for a model that came without
            one.
        text_vocab_size: Size of the text vocabulary, at least that of the text codec; 0: that of the text
            codec.
        max_speakers: Number of speaker ids of the text codecs "bytes", "phones" and "emphasis".
        local_speakers: Number of speaker ids that are local to a conversation instead of naming a voice, 0 to
            max_speakers.
        rope_base: Base of the frequencies of the rotary positions.
        rope_scaling: Factor by which Llama 3's rule stretches the long wavelengths of the rotary positions;
            1: no scaling, 32: csm-1b's.
        max_context: Maximum number of rows of one sequence; older turns go to the memory.
        cross_layers: Backbone layers that read the other modality by cross-attention; -1: every second layer,
            empty: none.
        memory_layers: Backbone layers that read the memory; -1: every second layer, empty: none.
        cross_window: Number of frames to each side of its own that a voice row reads of its text.
        frames_per_text_id: Mean number of frames per text id; sets the rotary positions of text rows that
            read voice.
        letters_per_frame: Number of letters predicted at each transcribed frame, from 480 ms of rows to each
            side of it; 0: no letter head.
        memory_slots: Number of memory slots of each kind, the gist included; at least 2.
        memory_kinds: Kinds of memory slots that are read: "semantic", "style" or both; empty: a learned slot
            alone, which holds nothing of the turns.
        gate: Initial gate of the cross-attention and memory layers; its tanh scales their output.
        dropout: Dropout rate of the residual branches, 0 to below 1.
        frame_dropout: Share of voice rows of spoken turns whose embedding training sets to zero in the
            backbone's input. A model trained on little speech otherwise memorises the codes of the training
            lines instead of reading the text.

    Raises:
        ValueError: A size that does not fit the others.
    """

    d_model: int = 768
    n_layers: int = 12
    n_heads: int = 12
    n_kv_heads: int = 0
    d_ff: int = 0
    depth_d_model: int = 256
    depth_n_layers: int = 2
    depth_n_heads: int = 4
    depth_n_kv_heads: int = 0
    depth_d_ff: int = 0
    depth_inputs: DepthInputs = "last"
    latent_dim: int = 0
    num_codebooks: int = 32
    semantic_codebooks: int = 10
    codebook_size: int = 1024
    extra_codes: int = 3
    zeros_end: bool = False
    text: str = "bytes"
    text_vocab_size: int = 0
    max_speakers: int = MAX_SPEAKERS
    local_speakers: int = 0
    rope_base: float = 500_000.0
    rope_scaling: float = 1.0
    max_context: int = 2048
    cross_layers: tuple[int, ...] = (-1,)
    memory_layers: tuple[int, ...] = (-1,)
    cross_window: int = 12
    frames_per_text_id: float = 0.85
    letters_per_frame: int = 0
    memory_slots: int = 16
    memory_kinds: tuple[str, ...] = ("semantic", "style")
    gate: float = 0.5
    dropout: float = 0.0
    frame_dropout: float = 0.0

    def __post_init__(self) -> None:
        sizes = ("d_model", "n_layers", "n_heads", "depth_d_model", "depth_n_layers", "depth_n_heads")
        for name in (*sizes, "max_speakers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected at least 1")
        for name in ("codebook_size", "max_context"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name} is {getattr(self, name)}: expected at least 2")
        most = self.max_speakers if self.text in BUILT_IN else 0
        if not 0 <= self.local_speakers <= most:
            raise ValueError(
                f"local_speakers is {self.local_speakers}: expected 0 to {most}, the speakers that the text "
                f"codec {self.text!r} has ids for (a tokenizer.json spells their numbers)"
            )
        for name in ("extra_codes", "cross_window", "letters_per_frame"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 0 or above")
        for name in ("dropout", "frame_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 0 to below 1")
        if self.depth_inputs not in get_args(DepthInputs):
            raise ValueError(
                f"depth_inputs is {self.depth_inputs!r}: expected one of {get_args(DepthInputs)}"
            )
        if self.latent_dim < 0 or (self.latent_dim and self.depth_inputs != "sum"):
            raise ValueError(
                f"latent_dim is {self.latent_dim} with depth_inputs {self.depth_inputs!r}: expected 0, or "
                f"more with 'sum'"
            )
        for name in ("d_model", "depth_d_model"):
            heads = self.n_heads if name == "d_model" else self.depth_n_heads
            if getattr(self, name) % (2 * heads):
                raise ValueError(
                    f"{name} is {getattr(self, name)} with {heads} heads: expected a multiple of "
                    f"{2 * heads}, so that every head has an even width for its rotary positions"
                )
        for part in ("", "depth_"):
            heads, shared = getattr(self, f"{part}n_heads"), getattr(self, f"{part}n_kv_heads")
            if shared < 0 or (shared and heads % shared):
                raise ValueError(
                    f"{part}n_kv_heads is {shared}: expected a divisor of {part}n_heads {heads}, or 0"
                )
        if not 0 < self.semantic_codebooks <= self.num_codebooks or self.num_codebooks < 2:
            raise ValueError(
                f"num_codebooks is {self.num_codebooks}, semantic_codebooks {self.semantic_codebooks}: "
                f"expected at least 2 codebooks and 1 to all of them semantic"
            )
        if not {*self.memory_kinds} <= {"semantic", "style"}:
            raise ValueError(
                f"memory_kinds is {self.memory_kinds}: expected 'semantic', 'style', both or none; "
                f"memory_layers=[] leaves the memory's layers out too"
            )
        if self.memory_slots < 2:
            raise ValueError(
                f"memory_slots is {self.memory_slots}: expected at least 2 (the gist and the newest)"
            )
        for name in ("cross_layers", "memory_layers"):
            layers = self.layers_of(name)
            if any(not 0 <= i < self.n_layers for i in layers):
                raise ValueError(f"{name} is {layers}: expected layers 0..{self.n_layers - 1}, () or (-1,)")

    def layers_of(self, name: str) -> tuple[int, ...]:
        """`cross_layers` or `memory_layers` with -1 resolved."""
        chosen = getattr(self, name)
        if chosen == (-1,):
            return tuple(range(1 if self.n_layers > 1 else 0, self.n_layers, 2))
        return tuple(chosen)

    @property
    def shapes(self) -> tuple[TransformerShape, TransformerShape]:
        """Shapes of backbone and depth decoder, with the zeros of the fields resolved."""
        return (
            TransformerShape(
                self.n_layers,
                self.d_model,
                self.n_heads,
                self.n_kv_heads or self.n_heads,
                self.d_ff or feed_forward_width(self.d_model),
            ),
            TransformerShape(
                self.depth_n_layers,
                self.depth_d_model,
                self.depth_n_heads,
                self.depth_n_kv_heads or self.depth_n_heads,
                self.depth_d_ff or feed_forward_width(self.depth_d_model),
            ),
        )

    @property
    def local_numbers(self) -> tuple[int, ...]:
        """Numbers of speakers that are local to a conversation: the highest ones, the highest first."""
        return tuple(range(self.max_speakers - 1, self.max_speakers - 1 - self.local_speakers, -1))

    @property
    def audio_vocab_size(self) -> int:
        """Entries of the audio vocabulary of each codebook."""
        return self.codebook_size + self.extra_codes

    @property
    def end_code(self) -> int:
        """Code of an end row: the first extra one, or 0 as in csm-1b."""
        return self.codebook_size if self.extra_codes and not self.zeros_end else 0
