"""A packed batch: it moves as a whole, and tells which frames train the depth decoder."""

from dataclasses import replace

import torch

from csm.sequences.row_builder import RowBuilder
from csm.text import ByteCodec


def rows() -> RowBuilder:
    return RowBuilder(ByteCodec(), 5, 24)


def test_moving_a_batch_moves_every_tensor(random_turn) -> None:
    builder = rows()
    builder.begin_sequence([random_turn("p")])
    builder.add_spoken(random_turn("a"))
    moved = builder.build().to(torch.device("meta"))
    tensors = [v for v in (*vars(moved).values(), *vars(moved.past).values()) if isinstance(v, torch.Tensor)]
    assert len(tensors) > 15 and all(t.is_meta for t in tensors)
    assert moved.ids == ["a"] and moved.longest == len(moved.text)


def test_all_frames_train_the_depth_decoder_unless_a_share_of_them_is_given(random_turn) -> None:
    builder = rows()
    builder.add_spoken(random_turn("a", "hi", frames=6))
    batch = builder.build()
    first = len(ByteCodec().encode_turn("hi", 0)) - 1
    # The row of the last frame predicts the end code, in the first codebook alone.
    assert batch.trained_frames().tolist() == list(range(first, first + 6))
    chosen = torch.tensor([first + 2])
    assert torch.equal(replace(batch, depth_rows=chosen).trained_frames(), chosen)
