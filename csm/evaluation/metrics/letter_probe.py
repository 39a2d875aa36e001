"""Letter probe: character error rate of a linear CTC layer on code vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torchaudio.functional import edit_distance

from csm.data.utterances import CTC_ALPHABET, spell
from csm.evaluation.core.metric import Score, scored
from csm.evaluation.core.statistics import seed_for
from csm.evaluation.metrics.coded_clips import CodedClip, ProbeConfig, clip_of, scale_of
from csm.system.threads import one_thread
from csm.tokenizer.training.losses import CTC_OUTPUTS_PER_FRAME


@one_thread()
def character_scores(
    train: Sequence[CodedClip], held_out: Sequence[CodedClip], stream: str, config: ProbeConfig
) -> list[Score]:
    """Scores the character error rate of a CTC probe (Graves et al. 2006) on each held-out clip.

    One linear layer from the standardised vectors of `window` frames to four outputs per frame, so that a
    frame of
    80 ms can hold more than one letter; the argmax is read without a language model.

    Args:
        train, held_out: Clips; training leaves out those without letters or with more letters than outputs.
        stream: One of `STREAMS`.
        config: How to train.

    Returns:
        Wrong letters / letters of the text, weighted by letters; `detail` is the predicted text. Held-out
        clips without letters have no score.

    Raises:
        ValueError: There is no clip to train on.
    """
    texts = [spell(clip.turn.text) for clip in train]
    usable = [i for i, clip in enumerate(train) if 0 < _outputs_needed(texts[i]) <= _outputs(clip, stream)]
    if not usable:
        raise ValueError(
            f"none of {len(train)} training clips has a text that its frames can hold; check the texts"
        )
    frames = [train[i].vectors[stream] for i in usable]
    mean, scale = scale_of(torch.cat(frames))
    frames = [(part - mean) / scale for part in frames]
    # A window over frames is a convolution, and a convolution of one layer is linear.
    shape = (CTC_OUTPUTS_PER_FRAME * len(CTC_ALPHABET), len(mean), config.window)
    weight, bias = torch.zeros(shape).requires_grad_(), torch.zeros(shape[0]).requires_grad_()
    optimizer = torch.optim.Adam([weight, bias], lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=config.steps)
    generator = torch.Generator().manual_seed(seed_for(config.seed, "letters"))
    for _ in range(config.steps):
        picks = torch.randperm(len(usable), generator=generator)[: config.batch].tolist()
        targets = [torch.tensor(texts[usable[i]]) for i in picks]
        loss = F.ctc_loss(
            _symbols([frames[i] for i in picks], weight, bias).transpose(0, 1),
            torch.cat(targets),
            torch.tensor([len(frames[i]) * CTC_OUTPUTS_PER_FRAME for i in picks]),
            torch.tensor([len(target) for target in targets]),
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    scores = []
    with torch.no_grad():
        for clip in held_out:
            if reference := _letters(spell(clip.turn.text)):
                outputs = _symbols([(clip.vectors[stream] - mean) / scale], weight, bias)[0].argmax(-1)
                read = _letters(torch.unique_consecutive(outputs).tolist())
                rate = edit_distance(reference, read) / len(reference)
                scores.append(scored(clip_of(clip.turn), rate, weight=len(reference), detail=read))
    return scores


def _outputs(clip: CodedClip, stream: str) -> int:
    return len(clip.vectors[stream]) * CTC_OUTPUTS_PER_FRAME


def _outputs_needed(symbols: Sequence[int]) -> int:
    """Counts the letters and the blanks that CTC needs between two equal ones."""
    return len(symbols) + sum(a == b for a, b in zip(symbols, symbols[1:], strict=False))


def _letters(symbols: Sequence[int]) -> str:
    """Joins CTC symbols to a text without blanks, with single spaces between words."""
    return " ".join("".join(CTC_ALPHABET[s] for s in symbols if s).split())


def _symbols(frames: Sequence[Tensor], weight: Tensor, bias: Tensor) -> Float[Tensor, "B T4 A"]:
    """Computes log probabilities of every output of clips [T, C], padded with frames of zeros, the mean."""
    padded = torch.nn.utils.rnn.pad_sequence(list(frames), batch_first=True)
    hidden = F.conv1d(padded.transpose(1, 2), weight, bias, padding=weight.shape[2] // 2).transpose(1, 2)
    return hidden.reshape(len(frames), -1, len(CTC_ALPHABET)).log_softmax(-1)
