"""The alignment of text and frames: each sub-frame is made of the text ids that are said in it."""

import torch

from csm.network.text_frame_alignment import SUBFRAMES, TextFrameAlignment
from csm.sequences.packed_batch import VoiceSpan


def test_a_frame_is_made_of_what_is_said_in_it() -> None:
    ends = torch.tensor([0.0, 0.5, 2.25, 4.0])
    alignment = TextFrameAlignment.pack([VoiceSpan(4, 5, 0, 4, 4, ends), VoiceSpan(14, 5, 9, 3, 7)])
    shares = alignment(torch.eye(7)).view(7, SUBFRAMES, 7)
    expected = torch.zeros(7, 7)
    expected[:4, :4] = torch.tensor([[0, 0.5, 0.5, 0], [0, 0, 1, 0], [0, 0, 0.25, 0.75], [0, 0, 0, 1]])
    expected[4:, 4:] = torch.eye(3)  # at an even pace: resampled later
    torch.testing.assert_close(shares.mean(dim=1), expected)
    # In the frame's order: the second letter ends after a half of the first frame.
    assert shares[0].argmax(dim=1).tolist() == [1, 1, 2, 2]
    assert alignment.frames == 7


def test_it_moves_to_a_device_as_a_whole() -> None:
    alignment = TextFrameAlignment.pack([VoiceSpan(0, 3, 3, 3, 3)]).to(torch.device("meta"))
    assert {part.device.type for part in alignment[:3]} == {"meta"} and alignment.frames == 3
