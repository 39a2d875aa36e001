"""The conversational loss: each part named, weighted and reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from csm.network.batch_layout import BatchLayout
from csm.network.letter_head import HeardRows, letter_cross_entropy
from csm.network.outputs import CSMCrossEntropies, CSMLogits, CSMOutput, TeacherForced
from csm.sequences.packed_batch import IGNORE, RowBatch


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the parts; 0 leaves a part out.

    Attributes:
        codebook0: Weight of the cross-entropy of codebook 0, the end code included, on every voice frame.
        semantic: Weight of the mean cross-entropy of the semantic codebooks after codebook 0, by the depth
            decoder on the sampled frames, times their share of codebooks 1..K-1.
        acoustic: Weight of the mean cross-entropy of the acoustic codebooks, by the depth decoder on the
            sampled frames, times their share of codebooks 1..K-1.
        text: Weight of the cross-entropy of the text of transcribed turns.
        pitch: Weight of the smooth L1 distance to the log-F0 of the frame that follows, where it is voiced.
        voicing: Weight of the binary cross-entropy of the voicing of the frame that follows.
        energy: Weight of the smooth L1 distance to the log energy of the frame that follows.
        duration: Weight of the L1 distance to a turn's log number of frames, predicted before the turn is
            spoken.
        pace: Weight of the L1 distance to the log number of frames of each text id of an aligned turn,
            predicted before the turn is spoken.
        letters: Weight of the CTC loss of the letters of transcribed turns, for models with a letter head.
        latent: Weight of the squared distance to the latent of the frame that follows, predicted before its
            code 0 is given, in units of the deviation of codebook 0; for models that predict it.
        refined: Weight of the squared distance to the latent of the frame that follows, predicted from its
            code 0 too, in units of the deviation of codebook 0; for models that predict it.
        label_smoothing: Share of label smoothing of all code and text targets, 0 to below 1.

    Raises:
        ValueError: A weight is negative.
    """

    codebook0: float = 1.0
    semantic: float = 1.0
    acoustic: float = 1.0
    text: float = 0.5
    pitch: float = 0.2
    voicing: float = 0.05
    energy: float = 0.05
    duration: float = 0.1
    pace: float = 0.2
    letters: float = 0.5
    latent: float = 3.0
    refined: float = 3.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 0 <= getattr(self, field.name) < float("inf"):
                raise ValueError(f"{field.name} is {getattr(self, field.name)}: expected 0 or above")
        if self.label_smoothing >= 1:
            raise ValueError(f"label_smoothing is {self.label_smoothing}: expected below 1")


class ConversationTargets(NamedTuple):
    """Targets in the order of the rows of CSMLogits.

    Attributes:
        codebook0: int64 [A], code 0 or the end code.
        depth: int64 [F, K - 1], codes 1..K-1.
        text: int64 [L], text ids.
        duration: float32 [U], log frames of turns.
        pace: float32 [P], log frames of text ids.
        prosody: float32 [A, 3], log-F0, voicing and log energy.
        prosody_known: bool [A], whether the prosody is measured.
        semantic_codebooks: Number of semantic codebooks.
        frames: Number of frames of this batch that the depth decoder could run on, sampled or not; end rows
            of zeros, as in csm-1b, count too. For a piece of a split micro-batch, the estimated number of its
            frames.
        voice_count, frame_count, text_count, turn_count, pace_count: Divisors of the sums: targets of the
            whole optimizer step per micro-batch, so that no part's weight depends on how a step is split.
        latent: float32 [T, D], latents of the frames; None if unknown.
        letters: int64 [M], letters of all transcribed turns, turn after turn.
        letter_sizes: Letters of each transcribed turn; 0 where they are no target.
        heard: Rows of each of these turns.
        letter_count: Divisor of the letters' sum, as the others.
        padded: Whether some targets are padding: IGNORE or NaN, or prosody that is not measured.
    """

    codebook0: Tensor
    depth: Tensor
    text: Tensor
    duration: Tensor
    pace: Tensor
    prosody: Tensor
    prosody_known: Tensor
    semantic_codebooks: int
    frames: float
    voice_count: float
    frame_count: float
    text_count: float
    turn_count: float
    pace_count: float
    latent: Tensor | None = None
    letters: Tensor | None = None
    letter_sizes: Sequence[int] = ()
    heard: Sequence[int] = ()
    letter_count: float = 1.0
    padded: bool = False

    @classmethod
    def of(
        cls, batch: RowBatch, semantic_codebooks: int, vectors: Float[Tensor, "K V D"] | None = None
    ) -> ConversationTargets:
        """Returns the targets of a batch of rows.

        Args:
            batch: Rows with targets.
            semantic_codebooks: Number of semantic codebooks.
            vectors: What each code adds to a latent; None: no latent is compared.
        """
        rows = batch.target_rows()
        frames = len(rows.frames)
        padded = isinstance(batch.layout, BatchLayout) and batch.layout.padded
        latent = None
        if vectors is not None:
            codes = batch.code_target.index_select(0, rows.frames)
            books = torch.arange(codes.shape[1], device=codes.device)
            latent = vectors[books, codes.clamp_min(0) if padded else codes].sum(dim=1)
            if padded:
                latent = latent.masked_fill(codes[:, :1] == IGNORE, float("nan"))

        def count(given: float | None, own: int) -> float:
            return max(1.0, float(own) if given is None else given)

        spans = [span for span in batch.text_spans if span.num_keys]
        if isinstance(batch.layout, BatchLayout):
            letters = batch.layout.heard.letters
        else:
            letters = HeardRows.of(spans).letters.to(batch.text.device)
        return cls(
            codebook0=batch.code_target[:, 0].index_select(0, rows.voice),
            depth=batch.code_target.index_select(0, rows.depth)[:, 1:],
            text=batch.text_target.index_select(0, rows.text),
            duration=batch.duration_target.index_select(0, rows.duration),
            pace=batch.pace_target.index_select(0, rows.pace),
            prosody=batch.prosody_target.index_select(0, rows.voice),
            prosody_known=batch.prosody_known.index_select(0, rows.voice),
            semantic_codebooks=semantic_codebooks,
            frames=frames if batch.depth_weight is None else batch.depth_weight * len(rows.depth),
            voice_count=count(batch.voice_count, len(rows.voice)),
            frame_count=count(batch.frame_count, frames),
            text_count=count(batch.text_count, len(rows.text)),
            turn_count=count(batch.turn_count, len(rows.duration)),
            pace_count=count(batch.pace_count, len(rows.pace)),
            latent=latent,
            letters=letters,
            letter_sizes=[len(span.letters) for span in spans],
            heard=[span.num_keys + 1 for span in spans],
            letter_count=count(batch.letter_count, sum(len(span.letters) for span in spans)),
            padded=padded,
        )


def conversational_loss(
    outputs: CSMOutput, targets: ConversationTargets, config: LossConfig | None = None
) -> ConversationalLoss:
    """Returns the weighted sum under `total`, and every part before its weight.

    All code and text parts are cross-entropies in nats per target; those of the depth decoder are divided by
    the number of sampled frames and weighed by the real ones, so that the share of sampled frames changes
    their variance alone. Non-finite outputs give a non-finite total, which stops all ranks of the training
    loop together.

    Args:
        outputs: Logits of a batch or, of the same label smoothing, its cross-entropies.
        targets: `ConversationTargets.of` the same batch.
        config: Weights of the parts; None takes the defaults.

    Raises:
        ValueError: The outputs were generated, or belong to another batch than the targets.
    """
    weights = config or LossConfig()
    parts: dict[str, Tensor] = {}
    if not isinstance(outputs, TeacherForced):
        raise ValueError(
            "outputs were generated, not teacher-forced: call the model with text and voice, or a batch"
        )
    prosody, duration, pace = outputs.prosody, outputs.duration, outputs.pace
    _require_same_batch(outputs, targets)
    codebook0, per_code, text = _cross_entropies(outputs, targets, weights.label_smoothing)
    parts["codebook0"] = codebook0 / targets.voice_count
    # The sum over sampled frames * (real / sampled) estimates the sum over all frames of the micro-batch.
    per_code = per_code * (targets.frames / max(1, len(targets.depth)) / targets.frame_count)
    cut = targets.semantic_codebooks - 1
    parts["semantic"] = per_code[:cut].mean() if cut else per_code.new_zeros(())
    parts["acoustic"] = per_code[cut:].mean() if cut < len(per_code) else per_code.new_zeros(())
    parts["text"] = text / targets.text_count
    known = targets.prosody_known.float()
    voiced = known * targets.prosody[:, 1]
    prosody = prosody.float()
    pitch = F.smooth_l1_loss(prosody[:, 0], targets.prosody[:, 0] - LOG_F0_CENTRE, reduction="none", beta=0.1)
    parts["pitch"] = (pitch * voiced).sum() / targets.voice_count
    voicing = F.binary_cross_entropy_with_logits(prosody[:, 1], targets.prosody[:, 1], reduction="none")
    parts["voicing"] = (voicing * known).sum() / targets.voice_count
    energy = F.smooth_l1_loss(prosody[:, 2], targets.prosody[:, 2] - LOG_ENERGY_CENTRE, reduction="none")
    parts["energy"] = (energy * known).sum() / targets.voice_count
    parts["duration"] = _apart(duration, targets.duration, targets.padded).abs().sum() / targets.turn_count
    parts["pace"] = _apart(pace, targets.pace, targets.padded).abs().sum() / targets.pace_count
    if outputs.latent is not None and targets.latent is not None:
        for name in ("latent", "refined"):
            apart = _apart(getattr(outputs, name), targets.latent, targets.padded)
            parts[name] = apart.square().sum() / targets.frame_count
    if outputs.letters is not None:
        assert targets.letters is not None
        letters = letter_cross_entropy(outputs.letters, targets.heard, targets.letters, targets.letter_sizes)
        parts["letters"] = letters / targets.letter_count
    share = share_of_codebooks(targets.depth.shape[1], targets.semantic_codebooks)
    scale = {"semantic": share, "acoustic": 1 - share}
    total = torch.stack([getattr(weights, n) * scale.get(n, 1.0) * value for n, value in parts.items()]).sum()
    return ConversationalLoss(total, parts)


def _apart(found: Tensor, wanted: Tensor, padded: bool) -> Tensor:
    """Returns predictions in fp32 less their targets: 0, with gradient 0, where a target is padding."""
    if not padded:
        return found.float() - wanted
    known = ~wanted.isnan()
    return torch.where(known, found.float(), 0.0) - torch.where(known, wanted, 0.0)


def _require_same_batch(outputs: CSMLogits | CSMCrossEntropies, targets: ConversationTargets) -> None:
    """Checks that outputs have as many rows as targets.

    Raises:
        ValueError: They are of different batches.
    """
    pairs = [(name, getattr(outputs, name)) for name in ("prosody", "duration", "pace")]
    if isinstance(outputs, CSMLogits):
        pairs = [(name, getattr(outputs, name)) for name in ("codebook0", "depth", "text")] + pairs
    for name, found in pairs:
        expected = getattr(targets, name)
        if found.shape[: expected.ndim] != expected.shape:
            raise ValueError(
                f"{name}: outputs {tuple(found.shape)} with targets {tuple(expected.shape)}: make the "
                f"targets from the batch that the model was called with"
            )


def _cross_entropies(
    outputs: CSMLogits | CSMCrossEntropies, targets: ConversationTargets, smoothing: float
) -> tuple[Float[Tensor, ""], Float[Tensor, " K1"], Float[Tensor, ""]]:
    """Returns cross-entropies summed over rows: of codebook 0, of each further codebook, of the text."""
    if isinstance(outputs, CSMCrossEntropies):
        return outputs.codebook0, outputs.depth, outputs.text

    def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), target, reduction="none", label_smoothing=smoothing)

    depth = outputs.depth
    per_code = cross_entropy(depth.flatten(0, 1), targets.depth.flatten()).view(depth.shape[:2]).sum(dim=0)
    return (
        cross_entropy(outputs.codebook0, targets.codebook0).sum(),
        per_code,
        cross_entropy(outputs.text, targets.text).sum(),
    )


# Speech averages about 150 Hz and -3.5 (log RMS): heads that start near 0 start near there.
LOG_F0_CENTRE = 5.0
LOG_ENERGY_CENTRE = -3.5


class ConversationalLoss(NamedTuple):
    """The weighted `total`, and the unweighted `parts` by name."""

    total: Float[Tensor, ""]
    parts: dict[str, Tensor]

    def backward(self) -> None:
        """Computes the gradients of the total."""
        self.total.backward()


def share_of_codebooks(depth_codebooks: int, semantic_codebooks: int) -> float:
    """Returns the semantic share of the depth decoder's codebooks (codebook 0 is the backbone's)."""
    return min(semantic_codebooks - 1, depth_codebooks) / depth_codebooks
