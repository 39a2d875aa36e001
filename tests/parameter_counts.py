"""Numbers of parameters by group, which are compared with the published ones."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from csm.network.parameters import group_of


class ParameterCounts(NamedTuple):
    """Number of parameters by group.

    Attributes:
        backbone, text_embedding, audio_embedding, codebook0_head, depth_decoder: Groups that csm-1b has; the
            depth decoder with its projection and heads.
        added: Parts that csm-1b lacks: cross-attention, memory, prosody and duration heads.
    """

    backbone: int
    text_embedding: int
    audio_embedding: int
    codebook0_head: int
    depth_decoder: int
    added: int

    @property
    def public(self) -> int:
        """Number of parameters of the parts that csm-1b has."""
        return sum(self) - self.added


def parameter_counts(network: nn.Module) -> ParameterCounts:
    """Counts the parameters of a network, which may be on the meta device."""
    counts = dict.fromkeys(ParameterCounts._fields, 0)
    for name, parameter in network.named_parameters():
        counts[group_of(name).group] += parameter.numel()
    return ParameterCounts(**counts)
