"""Dual memory of turns that left the context: a semantic and a style vector per turn.

When a turn is written, its text and semantic codes give the semantic vector, its acoustic codes and speaker
the style vector. The newest turns keep a slot each; older ones are averaged exponentially into one gist slot.
The size of the state does not depend on the length of the conversation. Folding turns into slots is linear
with fixed weights: training computes it in one product, generation turn by turn, equal up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from csm.network.initialise import draw
from csm.network.layers import RMSNorm, RowLayout, attend_few
from csm.network.rotary import constants_device
from csm.sequences.past_turns import PastTurns

# Share of the gist that survives each turn that fades into it: ten turns leave a tenth.
GIST_DECAY = 0.8
# Kinds of slots: what was said, and how.
KINDS = ("semantic", "style")


class MemoryState(NamedTuple):
    """Memory of S conversations; slot 0 is the gist, slot 1 the newest turn.

    Attributes:
        semantic, style: float32 [S, M, D], slots of each kind.
        turns: int64 [S], number of turns written so far.
        seen: bool [S, 1, 1, 2 M + 1], which slots of both kinds, and the empty one, rows attend to.
    """

    semantic: Tensor
    style: Tensor
    turns: Tensor
    seen: Tensor


def folding_weights(past: PastTurns, slots: int) -> Float[Tensor, "S M P"]:
    """Returns the weight of each past turn in each slot of each sequence."""
    counts = past.counts[past.sequence]
    slot = torch.arange(slots, device=counts.device).unsqueeze(1)
    kept = (slot >= 1) & (past.age == slot - 1)
    faded = counts - (slots - 1)
    place = counts - 1 - past.age
    # The first turn to fade starts the gist at full weight.
    fresh = torch.where(place == 0, 1.0, 1.0 - GIST_DECAY)
    gist = fresh * GIST_DECAY ** (faded - 1 - place).clamp_min(0).float()
    weights = torch.where(slot == 0, gist * (place < faded), kept.float())
    owner = torch.arange(len(past.counts), device=counts.device).view(-1, 1, 1) == past.sequence
    return weights * owner


class Folding(NamedTuple):
    """How the past turns of a batch go into the slots.

    Attributes:
        weights: float32 [S, M, P].
        turns: int64 [S], number of past turns of each sequence.
        seen: As of MemoryState.
    """

    weights: Tensor
    turns: Tensor
    seen: Tensor

    @classmethod
    def of(cls, past: PastTurns, slots: int) -> Folding:
        """Returns the folding of these turns into `slots` slots of each kind."""
        return cls(folding_weights(past, slots), past.counts, seen_slots(past.counts, slots))


class TurnWriter(nn.Module):
    """Maps turns to their semantic and style vectors.

    Args:
        width: Width of the vectors.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.semantic = nn.Sequential(RMSNorm(2 * width), nn.Linear(2 * width, width))
        self.style = nn.Sequential(RMSNorm(3 * width), nn.Linear(3 * width, width))

    def reset_parameters(self) -> None:
        """Draws the initial weights."""
        draw(self.semantic[1], self.style[1])

    def forward(
        self,
        past: PastTurns,
        text: Float[Tensor, "W D"],
        semantic: Float[Tensor, "F D"],
        acoustic: Float[Tensor, "F D"],
        speaker: Float[Tensor, "P D"],
    ) -> tuple[Float[Tensor, "P D"], Float[Tensor, "P D"]]:
        """Returns the two vectors of each turn.

        Args:
            past: Turns.
            text: Embeddings of all text ids.
            semantic, acoustic: Summed embeddings of the semantic and acoustic codes of all frames.
            speaker: Embedding of each turn's speaker.
        """
        said = torch.cat(
            [
                _mean(text, past.text_turn, past.text_count),
                _mean(semantic, past.codes_turn, past.frame_count),
            ],
            dim=-1,
        )
        mean = _mean(acoustic, past.codes_turn, past.frame_count)
        apart = acoustic.float() - mean[past.codes_turn]
        spread = _mean(apart.square(), past.codes_turn, past.frame_count).add(1e-6).sqrt()
        return self.semantic(said), self.style(torch.cat([mean, spread, speaker.float()], dim=-1))


def _mean(rows: Tensor, turn: Tensor, counts: Tensor) -> Tensor:
    """Returns the mean of the rows of each turn, [P, D] in fp32; `counts` [P, 1] are at least 1."""
    total = rows.new_zeros(len(counts), rows.shape[1], dtype=torch.float32).index_add(0, turn, rows.float())
    return total / counts


class MemoryRead(nn.Module):
    """Gated attention of rows over the memory slots of their sequence and one learned empty slot.

    Args:
        width: Width of the rows.
        n_heads: Number of heads.
        slots: Number of slots of each kind.
        gate: Initial gate; its tanh weighs what is read.
        kinds: Kinds of slots that are read, of KINDS.
    """

    readable: Tensor

    def __init__(
        self, width: int, n_heads: int, slots: int, gate: float, kinds: Sequence[str] = KINDS
    ) -> None:
        super().__init__()
        self.n_heads = n_heads
        readable = [kind in kinds for kind in KINDS for _ in range(slots)] + [True]
        self.register_buffer("readable", torch.tensor(readable, device=constants_device()), persistent=False)
        self.norm = RMSNorm(width)
        # One embedding per age and kind of slot; the last row is the empty slot.
        self.places = nn.Parameter(torch.randn(2 * slots + 1, width) * 0.02)
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )
        self.gate = nn.Parameter(torch.full((1,), gate))

    def reset_parameters(self, branch_std: float) -> None:
        """Draws the initial weights; `places` keeps its values of `__init__`."""
        draw(self.q_proj, self.k_proj, self.v_proj)
        draw(self.o_proj, std=branch_std)

    def forward(self, x: Float[Tensor, "R D"], layout: RowLayout, state: MemoryState) -> Float[Tensor, "R D"]:
        """Returns the rows with what they read of their own sequence's slots added."""
        count, _, width = state.semantic.shape
        nothing = state.semantic.new_zeros(count, 1, width)
        source = (torch.cat([state.semantic, state.style, nothing], dim=1) + self.places).to(x.dtype)
        heads = (self.n_heads, width // self.n_heads)
        k, v = (
            project(source).unflatten(-1, heads).transpose(1, 2) for project in (self.k_proj, self.v_proj)
        )
        q = layout.pad(self.q_proj(self.norm(x))).unflatten(-1, heads).transpose(1, 2)
        out = attend_few(q, k, v, mask=state.seen & self.readable)
        return x + torch.tanh(self.gate) * self.o_proj(layout.unpad(out.transpose(1, 2).flatten(2)))


def filled_slots(turns: Tensor, slots: int) -> Tensor:
    """Returns bool [S, M], which slots hold a turn after this number of turns."""
    place = torch.arange(slots, device=turns.device)
    newest = (place >= 1) & (place <= turns.unsqueeze(1))
    return newest | ((place == 0) & (turns.unsqueeze(1) >= slots))


def seen_slots(turns: Tensor, slots: int) -> Tensor:
    """Returns bool [S, 1, 1, 2 M + 1], the slots of both kinds that hold a turn, and the empty slot."""
    filled = filled_slots(turns, slots)
    return torch.cat([filled, filled, torch.ones_like(filled[:, :1])], dim=1)[:, None, None]


class ConversationMemory(nn.Module):
    """Writes past turns into a bounded state.

    Args:
        width: Width of the vectors.
        slots: Number of slots of each kind, the gist included; at least 2.
    """

    def __init__(self, width: int, slots: int) -> None:
        super().__init__()
        self.width, self.slots = width, slots
        self.writer = TurnWriter(width)

    def empty(self, count: int, device: torch.device) -> MemoryState:
        """Returns the state of `count` conversations without past turns."""
        zeros = torch.zeros(count, self.slots, self.width, device=device)
        turns = torch.zeros(count, dtype=torch.int64, device=device)
        return MemoryState(zeros, zeros.clone(), turns, seen_slots(turns, self.slots))

    def write(
        self, state: MemoryState, semantic: Float[Tensor, "S D"], style: Float[Tensor, "S D"]
    ) -> MemoryState:
        """Returns the state after one more turn in every conversation."""

        def fold(slots: Tensor, new: Tensor, leaves: Tensor, first: Tensor) -> Tensor:
            gist, oldest = slots[:, 0], slots[:, -1]
            mixed = torch.where(first, oldest, GIST_DECAY * gist + (1 - GIST_DECAY) * oldest)
            gist = torch.where(leaves, mixed, gist)
            return torch.cat([gist.unsqueeze(1), new.unsqueeze(1), slots[:, 1:-1]], dim=1)

        leaves = (state.turns >= self.slots - 1).unsqueeze(1)
        first = (state.turns == self.slots - 1).unsqueeze(1)
        return MemoryState(
            fold(state.semantic, semantic.float(), leaves, first),
            fold(state.style, style.float(), leaves, first),
            state.turns + 1,
            seen_slots(state.turns + 1, self.slots),
        )

    def fold(
        self, folding: Folding, semantic: Float[Tensor, "P D"], style: Float[Tensor, "P D"]
    ) -> MemoryState:
        """Returns the state after writing all past turns, in one product."""
        return MemoryState(
            folding.weights @ semantic.float(), folding.weights @ style.float(), folding.turns, folding.seen
        )
