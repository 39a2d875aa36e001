"""Words read from semantic codes by what their tokenizer was trained with: its letters, and its teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from csm.evaluation.metrics.coded_clips import CodedClip
from csm.evaluation.metrics.text_reader import letters_of
from csm.system.threads import one_thread
from csm.tokenizer.codebook import CodebookStack
from csm.tokenizer.semantic.semantic_heads import SemanticHeads
from csm.training.recogniser import Recogniser

BATCH = 16
#: Text ids of the recogniser at most: fast speech has five a second.
IDS_PER_STEP, SPARE_IDS = 0.2, 8

Rows = Callable[[CodedClip], Float[Tensor, "T C"]]


@one_thread()
@torch.no_grad()
def letters_of_heads(heads: SemanticHeads, clips: Sequence[CodedClip], rows: Rows) -> list[str]:
    """Returns what the letter head reads from each clip by argmax.

    Args:
        heads: Heads of the clips' tokenizer.
        clips: Clips.
        rows: Vectors of a clip's frames.
    """
    # One by one: padding would be features of their own, which convolutions read.
    return [letters_of(heads.letter_scores(heads.steps(rows(clip).unsqueeze(0)))[0]) for clip in clips]


@torch.no_grad()
def letters_of_prefixes(
    heads: SemanticHeads, stack: CodebookStack, codes: Int[Tensor, "K T"], counts: Sequence[int]
) -> list[str]:
    """Returns what the letter head reads from the first codebooks of one clip.

    Args:
        heads: Heads of the clip's tokenizer.
        stack: Its semantic codebooks.
        codes: Codes of the clip, from the first codebook on.
        counts: Numbers of first codebooks.
    """
    sums = [stack.lookup(codes[:count].T) for count in counts]
    return [letters_of(heads.letter_scores(heads.steps(rows.unsqueeze(0)))[0]) for rows in sums]


@one_thread()
@torch.no_grad()
def words_of_decoder(
    recogniser: Recogniser, clips: Sequence[CodedClip], steps: Callable[[CodedClip], Float[Tensor, "N D"]]
) -> list[str]:
    """Returns what a recogniser's decoder reads from each clip by argmax.

    Args:
        recogniser: The recogniser.
        clips: Clips.
        steps: Features of a clip at 50 steps a second.
    """
    order = sorted(range(len(clips)), key=lambda i: clips[i].codes.shape[1])
    texts = [""] * len(clips)
    for first in range(0, len(order), BATCH):
        picks = order[first : first + BATCH]
        parts = [steps(clips[i]) for i in picks]
        counts = torch.tensor([len(part) for part in parts])
        mask = torch.arange(int(counts.max())) < counts.unsqueeze(1)
        longest = (IDS_PER_STEP * counts).long() + SPARE_IDS
        for i, text in zip(
            picks, recogniser.read(pad_sequence(parts, batch_first=True), mask, longest), strict=True
        ):
            texts[i] = text
    return texts
