"""interpolated_attention in plain torch: packed keys resampled once, then tiles of queries.

Keys and values are resampled to their packed [total_l, H, d] (two taps and a weight). Packed queries are cut
into tiles of consecutive queries of one sequence; a tile meets a run of resampled positions: with a window w
the tile's own positions and w on either side, else all of them. So a window costs O(Tq w), sequences of very
different lengths share a batch with little padding, and attention is a batched product.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

ROWS = 64  # most queries of a tile; with a window, the tile is about as wide as the window
CHUNK = 1 << 17  # numbers in the largest tensor of a chunk on CPU: 512 kB stay in an L2 cache
CHUNK_ON_GPU = 1 << 26


@dataclass(frozen=True, kw_only=True)
class Taps:
    """Where each resampled position of the packed batch lies between two keys.

    Attributes:
        left: [total_l], packed key left of it.
        right: [total_l], packed key right of it.
        weight: [total_l, 1], share of the right one.
    """

    left: Tensor
    right: Tensor
    weight: Tensor

    def resample(self, t: Tensor) -> Tensor:
        """[total_k, H, d] -> [total_l, H, d]."""
        flat = t.flatten(1)
        left, right = flat.index_select(0, self.left), flat.index_select(0, self.right)
        return torch.lerp(left, right, self.weight, out=left).view(-1, *t.shape[1:])

    def backward(self, gradient: Tensor, total_k: int) -> Tensor:
        """Gradient of `resample`: [total_l, H, d] -> [total_k, H, d]."""
        flat = gradient.flatten(1)
        to_right = flat * self.weight
        total = flat.new_zeros(total_k, flat.shape[1])
        total.index_add_(0, self.right, to_right).index_add_(0, self.left, flat - to_right)
        return total.view(total_k, *gradient.shape[1:])


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Where each tile reads: G tiles of R queries by P positions.

    Attributes:
        rows: [G, R], packed query, or total_q where the tile has none.
        positions: [G, P], packed resampled position.
        unseen: [G, R, P] bool, True where the query does not see the position.
    """

    rows: Tensor
    positions: Tensor
    unseen: Tensor

    def chunks(self, heads: int, width: int) -> Iterator["Tiles"]:
        """Runs of tiles whose attention fits CHUNK."""
        rows, positions = self.unseen.shape[1:]
        largest = heads * max(rows * positions, positions * width, rows * width)
        count = max(1, (CHUNK if self.rows.device.type == "cpu" else CHUNK_ON_GPU) // largest)
        parts = (t.split(count) for t in (self.rows, self.positions, self.unseen))
        for rows_part, positions_part, unseen in zip(*parts, strict=True):
            yield Tiles(rows=rows_part, positions=positions_part, unseen=unseen)


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """The packed batch: per sequence where its queries, keys and positions start and how many there are.

    Attributes:
        queries: [2, B], first and count.
        keys: [2, B].
        positions: [2, B]; count 0 for a sequence without keys.
        offsets: [B], position of the first query.
        host: Counts of queries and positions, on the host.
    """

    queries: Tensor
    keys: Tensor
    positions: Tensor
    offsets: Tensor
    host: list[list[int]]


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    lengths: Tensor,
    query_offsets: Tensor,
    window: int | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """See `csm_kernels.interpolated_attention`; computes in fp32, float64 for float64.

    Returns:
        Output [total_q, H, d] in q's dtype, and the log of the sum of exponentials [total_q, H], -inf in a
        row that sees nothing.
    """
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    sequences = _sequences(cu_seqlens_q, cu_seqlens_k, lengths, query_offsets)
    taps = _taps(sequences, dtype)
    queries, keys, values = _with_spare_row(q, dtype), taps.resample(k.to(dtype)), taps.resample(v.to(dtype))
    output, lse = torch.zeros_like(queries), queries.new_full(queries.shape[:2], -torch.inf)
    for tiles in _cut(sequences, window, *q.shape[1:]):
        logits = _logits(_read(queries, tiles.rows).mul_(scale), _read(keys, tiles.positions), tiles)
        blind = tiles.unseen.all(2)[:, None, :, None]
        total = logits.logsumexp(-1, keepdim=True).masked_fill_(blind, -torch.inf)
        lse.index_copy_(0, tiles.rows.flatten(), total.squeeze(3).transpose(1, 2).flatten(0, 1))
        result = (logits.softmax(-1) @ _read(values, tiles.positions)).masked_fill_(blind, 0)
        output.index_copy_(0, tiles.rows.flatten(), result.transpose(1, 2).flatten(0, 1))
    return output[:-1].to(q.dtype), lse[:-1]


def attend_backward(
    gradient: Tensor,
    output: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    lengths: Tensor,
    query_offsets: Tensor,
    window: int | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v; the softmax is computed again rather than from `lse`."""
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    sequences = _sequences(cu_seqlens_q, cu_seqlens_k, lengths, query_offsets)
    taps = _taps(sequences, dtype)
    queries, keys, values = _with_spare_row(q, dtype), taps.resample(k.to(dtype)), taps.resample(v.to(dtype))
    gradients = _with_spare_row(gradient, dtype)
    # Softmax backward needs sum over positions of share * d share = gradient . output.
    means = _with_spare_row((gradient.to(dtype) * output.to(dtype)).sum(-1, keepdim=True), dtype)
    dq, dk, dv = torch.zeros_like(queries), torch.zeros_like(keys), torch.zeros_like(values)
    for tiles in _cut(sequences, window, *q.shape[1:]):
        tile_q, tile_k = _read(queries, tiles.rows).mul_(scale), _read(keys, tiles.positions)
        # A query that sees nothing gives 0 whatever it holds: its gradient stops here.
        blind = tiles.unseen.all(2)[:, None, :, None]
        tile_g = _read(gradients, tiles.rows).masked_fill_(blind, 0)
        mean = _read(means, tiles.rows).masked_fill_(blind, 0)
        shares = _logits(tile_q, tile_k, tiles).softmax(-1)
        _add(dv, shares.transpose(2, 3) @ tile_g, tiles.positions)
        slopes = tile_g @ _read(values, tiles.positions).transpose(2, 3)
        slopes.sub_(mean).mul_(shares)
        _add(dk, slopes.transpose(2, 3) @ tile_q, tiles.positions)
        result = (slopes @ tile_k).mul_(scale)
        dq.index_copy_(0, tiles.rows.flatten(), result.transpose(1, 2).flatten(0, 1))
    dk, dv = taps.backward(dk, k.shape[0]), taps.backward(dv, v.shape[0])
    return dq[:-1].to(q.dtype), dk.to(k.dtype), dv.to(v.dtype)


def _logits(tile_q: Tensor, tile_k: Tensor, tiles: Tiles) -> Tensor:
    """Logits [G, H, R, P], the smallest number where a query does not see a position."""
    logits = tile_q @ tile_k.transpose(2, 3)
    return logits.masked_fill_(tiles.unseen[:, None], torch.finfo(logits.dtype).min)


def _with_spare_row(t: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.cat((t.to(dtype), t.new_zeros(1, *t.shape[1:], dtype=dtype)))


def _read(t: Tensor, rows: Tensor) -> Tensor:
    """Rows of a packed [T, H, d] as [G, H, R, d]."""
    return t.index_select(0, rows.flatten()).view(*rows.shape, *t.shape[1:]).transpose(1, 2).contiguous()


def _add(total: Tensor, gradient: Tensor, rows: Tensor) -> None:
    """Adds [G, H, P, d] to the rows of a packed [T, H, d] that `_read` took it from."""
    total.flatten(1).index_add_(0, rows.flatten(), gradient.transpose(1, 2).flatten(2).flatten(0, 1))


def _sequences(cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, lengths: Tensor, offsets: Tensor) -> Sequences:
    queries, keys = (torch.stack((t[:-1], t[1:] - t[:-1])) for t in (cu_seqlens_q, cu_seqlens_k))
    counts = torch.where(keys[1] > 0, lengths, 0)
    positions = torch.stack((counts.cumsum(0) - counts, counts))
    host = torch.stack((queries[1], counts)).tolist()
    return Sequences(queries=queries, keys=keys, positions=positions, offsets=offsets, host=host)


def _taps(sequences: Sequences, dtype: torch.dtype) -> Taps:
    """Source place of position j: (j + 1/2) Tk / L - 1/2 within [0, Tk - 1], in exact integers."""
    first, length = sequences.positions
    packed = torch.arange(sum(sequences.host[1]), device=length.device)
    owner = torch.searchsorted(first + length, packed, right=True)
    j, start, taps, length = packed - first[owner], *sequences.keys[:, owner], length[owner]
    place = ((2 * j + 1) * taps - length).clamp(min=0)
    place = torch.minimum(place, (taps - 1) * 2 * length)
    left, weight = place // (2 * length), (place % (2 * length)).double() / (2 * length)
    right = torch.minimum(left + 1, taps - 1)
    return Taps(left=start + left, right=start + right, weight=weight.to(dtype)[:, None])


def _cut(sequences: Sequences, window: int | None, heads: int, width: int) -> Iterator[Tiles]:
    """Chunks of tiles of all sequences that have queries and positions, those of like size together."""
    groups: dict[int, list[int]] = {}
    counts, lengths = sequences.host
    most = ROWS if window is None else min(max(2 * window, 32), ROWS)
    for index, (count, length) in enumerate(zip(counts, lengths, strict=True)):
        if count and length:
            reach = length if window is None else min(length, 2 * window + min(most, count))
            groups.setdefault(reach.bit_length(), []).append(index)
    for members in groups.values():
        rows = min(most, max(counts[index] for index in members))
        longest = max(lengths[index] for index in members)
        positions = longest if window is None else min(longest, 2 * window + rows)
        number = sum(-(-counts[index] // rows) for index in members)
        chosen = torch.tensor(members, device=sequences.offsets.device)
        yield from _tiles(sequences, chosen, window, (number, rows, positions)).chunks(heads, width)


def _tiles(sequences: Sequences, chosen: Tensor, window: int | None, shape: tuple[int, int, int]) -> Tiles:
    """Cuts the chosen sequences into G tiles of R queries by P positions, (G, R, P) = shape."""
    number, rows, run = (torch.arange(end, device=chosen.device) for end in shape)
    queries, positions = sequences.queries[:, chosen], sequences.positions[:, chosen]
    per_sequence = (queries[1] + shape[1] - 1) // shape[1]
    ends = per_sequence.cumsum(0)
    owner = torch.searchsorted(ends, number, right=True)
    local = (number - (ends - per_sequence)[owner])[:, None] * shape[1] + rows
    exists = local < queries[1][owner, None]
    query = sequences.offsets[chosen][owner, None] + local

    length = positions[1][owner, None]
    first = torch.zeros_like(length) if window is None else (query[:, :1] - window).clamp(min=0)
    # Near the end the run starts earlier: tiles of one shape, no position beyond the last.
    position = torch.minimum(first, (length - shape[2]).clamp(min=0)) + run
    unseen = ~(exists[:, :, None] & (position < length)[:, None])
    if window is not None:
        unseen |= (query[:, :, None] - position[:, None]).abs() > window
    return Tiles(
        rows=torch.where(exists, queries[0][owner, None] + local, sum(sequences.host[0])),
        positions=positions[0][owner, None] + torch.minimum(position, length - 1),
        unseen=unseen,
    )
