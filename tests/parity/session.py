"""CSMModel's teacher forcing against a Session, for `tests.parity.logits`.

The real generator speaks turns of given codes; the training's batch of the same turns is made by the
training's own builder, model and loss. Neither is reimplemented here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from csm.generation.sampling import SamplingConfig
from csm.generation.session import ContextTurn, Session
from csm.losses import ConversationTargets, LossConfig, conversational_loss, share_of_codebooks
from csm.model import CSMModel
from csm.sequences.packed_batch import IGNORE, RowBatch
from csm.sequences.turns import FRAMES_PER_SECOND, TurnFrames
from tests.parity.logits import CodeLogits, StepLoss

VOICE_ONLY = LossConfig(text=0.0, pitch=0.0, voicing=0.0, energy=0.0, duration=0.0, pace=0.0)


class Prefix(NamedTuple):
    """A conversation up to a turn that was spoken: turns in the memory, turns in the exact context."""

    past: list[TurnFrames]
    context: list[ContextTurn]


class Played(NamedTuple):
    """What sessions did, one prefix per spoken turn, and every logit that they computed."""

    prefixes: list[Prefix]
    seen: CodeLogits


class SessionAdapter:
    """CSMModel's teacher forcing against Session, packed as one sequence per prefix.

    Args:
        model: In eval mode.
        depth_share: Share of the frames that the depth decoder is run on, as in training.
        seed: Of the draw of these frames.
        loss: Weights of the parts.
    """

    def __init__(
        self, model: CSMModel, *, depth_share: float = 1.0, seed: int = 0, loss: LossConfig = VOICE_ONLY
    ) -> None:
        self.model, self.depth_share, self.seed, self.weights = model, depth_share, seed, loss

    def play(
        self, conversations: Sequence[Sequence[TurnFrames]], *, spoken: Sequence[int], pace: float = 1.0
    ) -> Played:
        """Holds conversations with the real generator, which takes its codes from the turns.

        Args:
            conversations: Turns of each; what does not fit the context overflows into the memory.
            spoken: Numbers of the turns that the session speaks; it listens to the others.
            pace: Expected frames of a spoken turn over its real ones; the session runs on past them.

        Raises:
            ValueError: A turn that the session cut off before its end.
        """
        prefixes: list[Prefix] = []
        entries: list[tuple[int, int, int, int, Tensor]] = []
        for turns in conversations:
            session = Session(self.model)
            for index, turn in enumerate(turns):
                if index not in spoken:
                    session.listen(turn)
                    continue
                seen = self._speak(session, turn, pace)
                entries += [(len(prefixes), *entry) for entry in seen]
                kept = list(session.turns)
                prefixes.append(Prefix(list(turns[: index + 1 - len(kept)]), kept))
        places = torch.tensor([entry[:3] for entry in entries]).view(-1, 3)
        codes = torch.tensor([entry[3] for entry in entries])
        return Played(prefixes, CodeLogits(places, codes, torch.stack([entry[4] for entry in entries]).cpu()))

    def _speak(self, session: Session, turn: TurnFrames, pace: float) -> list[tuple[int, int, int, Tensor]]:
        config = self.model.config
        frames = turn.codes[: config.num_codebooks].T
        end = torch.full((1, config.num_codebooks), config.end_code)
        # One frame more than there are, so that the session reaches the end code.
        seconds = (len(frames) + 1.5) / FRAMES_PER_SECOND
        session.sampling = SamplingConfig(shortest=0.0, max_seconds=seconds, extra_codes=True)
        session.next_code = script = Script(session, torch.cat([frames, end]))
        said = list(session.speak(turn.text, turn.speaker, frames=max(1, round(pace * len(frames)))))
        if len(said) != len(frames) or not torch.equal(torch.stack(said), frames):
            raise ValueError(
                f"turn {turn.id}: the session said {len(said)} of {len(frames)} frames: expected a turn that "
                f"fits max_context {config.max_context} and about twice its expected length"
            )
        return script.seen

    def rows(self, played: Played) -> RowBatch:
        """The batch that training makes of the prefixes; the last turn of each is trained."""
        builder = self.model.new_rows()
        for past, context in played.prefixes:
            builder.begin_sequence(past)
            for index, (turn, length) in enumerate(context):
                builder.add_spoken(turn, length=length, train=index == len(context) - 1)
        batch = builder.build()
        frames = batch.trained_frames()
        count = max(1, round(len(frames) * self.depth_share))
        drawn = torch.randperm(len(frames), generator=torch.Generator().manual_seed(self.seed))[:count]
        batch.depth_rows = frames[drawn.sort().values]
        return batch.to(self.model.audio_embedding.weight.device)

    def teacher_forced_logits(self, batch: Played) -> CodeLogits:
        """The logits of one forward pass over all prefixes, with the targets of the loss."""
        rows = self.rows(batch)
        output = self.model.logits(rows)
        targets = ConversationTargets.of(rows, self.model.config.semantic_codebooks)
        places = torch.arange(len(rows.text), device=rows.text.device)
        sequence = torch.bucketize(places, rows.cu_seqlens[1:].long(), right=True)
        places = torch.stack([sequence, rows.positions, torch.zeros_like(places)], dim=1)
        first = places[rows.code_target[:, 0] != IGNORE]
        later = places[rows.trained_frames()].repeat_interleave(targets.depth.shape[1], dim=0)
        later[:, 2] = torch.arange(targets.depth.shape[1], device=later.device).repeat(len(targets.depth)) + 1
        logits = torch.cat([output.codebook0, output.depth.flatten(0, 1)])
        codes = torch.cat([targets.codebook0, targets.depth.flatten()])
        return CodeLogits(torch.cat([first, later]).cpu(), codes.cpu(), logits.float().cpu())

    def stepwise_logits(self, batch: Played) -> CodeLogits:
        """What the sessions computed."""
        return batch.seen

    def step_loss(self, micro_batches: Sequence[Played]) -> StepLoss:
        """As `ModelTask` and the training loop: the mean over shards, in shares of the step's targets."""
        semantic = self.model.config.semantic_codebooks
        share = share_of_codebooks(self.model.config.num_codebooks - 1, semantic)
        shards = [self.rows(batch) for batch in micro_batches]
        counts = torch.stack([(shard.code_target[:, :2] != IGNORE).sum(dim=0) for shard in shards])
        for shard in shards:
            shard.voice_count, shard.frame_count = counts.double().mean(dim=0).tolist()
        sums: list[Tensor] = []
        for shard in shards:
            targets = ConversationTargets.of(shard, semantic)
            output = self.model(batch=shard, label_smoothing=self.weights.label_smoothing)
            total, parts = conversational_loss(output, targets, self.weights)
            depth = share * self.weights.semantic * parts["semantic"]
            depth = depth + (1 - share) * self.weights.acoustic * parts["acoustic"]
            sums.append(torch.stack([total, self.weights.codebook0 * parts["codebook0"], depth]))
        return StepLoss(*torch.stack(sums).mean(dim=0))


class Script:
    """Chooses codes for a session from a script, and records the session's logits.

    Args:
        session: Session that speaks; it calls once per code and in order.
        frames: int64 [T, K], the frames in order, with the row that ends the turn.

    Attributes:
        seen: (row, codebook, code, logits) of every choice.
    """

    def __init__(self, session: Session, frames: Tensor) -> None:
        self.session, self.frames, self.frame = session, frames, -1
        self.seen: list[tuple[int, int, int, Tensor]] = []

    def __call__(self, logits: Tensor, codebook: int, allowed: Tensor) -> Tensor:
        """Returns the code of the script."""
        self.frame += codebook == 0
        code = self.frames[self.frame, codebook]
        self.seen.append((self.session.rows - 1, codebook, int(code), logits.detach().float().clone()))
        return code.to(logits.device)
