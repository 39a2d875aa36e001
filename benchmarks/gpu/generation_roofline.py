"""What generating one frame must read from memory: at batch 1 that alone bounds its time."""

from __future__ import annotations

from dataclasses import dataclass

from csm.network.conversation_network import ConversationNetwork
from csm.network.io.checkpoints import on_meta
from csm.network.model_config import CSMConfig
from csm.network.presets import csm_1b


@dataclass(frozen=True, kw_only=True)
class FrameTraffic:
    """Bytes read for one frame of one conversation.

    Attributes:
        backbone: Its blocks and the head of codebook 0, each weight once.
        depth_layers: The depth decoder's blocks and projection, read once.
        depth_passes: How often they are read where no cache holds them: K - 1, as the first two positions
            are run together.
        depth_heads: A head per later codebook, each once.
        context: Keys and values of the rows so far.
    """

    backbone: int
    depth_layers: int
    depth_passes: int
    depth_heads: int
    context: int

    @property
    def once(self) -> int:
        """If every weight came once: the depth decoder stays in a cache."""
        return self.backbone + self.depth_layers + self.depth_heads + self.context

    @property
    def streamed(self) -> int:
        """Bytes if the depth decoder is read again for every codebook."""
        return self.once + (self.depth_passes - 1) * self.depth_layers

    def floor_ms(self, gigabytes_per_second: float, *, cached: bool) -> float:
        """Least milliseconds a frame takes at a memory bandwidth."""
        return (self.once if cached else self.streamed) / gigabytes_per_second / 1e6


def frame_traffic(config: CSMConfig, *, context: int, bytes_per_weight: int = 2) -> FrameTraffic:
    """The traffic of a model of these sizes.

    Args:
        config: Cross-attention and memory layers count where there are any.
        context: Rows in the key-value cache.
        bytes_per_weight: 2 for bfloat16, of keys and values too.
    """
    model = on_meta(ConversationNetwork, config)

    def size(module) -> int:
        return bytes_per_weight * sum(parameter.numel() for parameter in module.parameters())

    heads = bytes_per_weight * model.depth_decoder.heads.numel()
    kv_width = 2 * (config.n_kv_heads or config.n_heads) * (config.d_model // config.n_heads)
    return FrameTraffic(
        backbone=size(model.backbone) + size(model.codebook0_head),
        depth_layers=size(model.depth_decoder) - heads,
        depth_passes=config.num_codebooks - 1,
        depth_heads=heads,
        context=bytes_per_weight * config.n_layers * kv_width * context,
    )


# GB/s, of the makers' data sheets.
BANDWIDTHS = {
    "T4": 320,
    "L4": 300,
    "RTX 4090": 1008,
    "A100 80GB SXM": 2039,
    "H100 SXM": 3350,
    "H200 SXM": 4800,
}


def floors_table(config: CSMConfig, contexts: tuple[int, ...] = (0, 2048)) -> str:
    """A markdown table: least milliseconds of a frame on common GPUs, bfloat16, batch 1."""
    traffic = {rows: frame_traffic(config, context=rows) for rows in contexts}
    heads = [
        f"{rows} rows, {kind}" for rows in contexts for kind in ("each weight once", "depth decoder again")
    ]
    lines = [f"| ms a frame | GB/s | {' | '.join(heads)} |", "|" + "---|" * (len(heads) + 2)]
    for name, bandwidth in BANDWIDTHS.items():
        floors = (
            f"{traffic[rows].floor_ms(bandwidth, cached=cached):.2f}"
            for rows in contexts
            for cached in (True, False)
        )
        lines.append(f"| {name} | {bandwidth} | {' | '.join(floors)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(floors_table(csm_1b()))
