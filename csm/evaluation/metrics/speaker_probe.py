"""Speaker probe: accuracy of a logistic regression on the code vectors of a clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from csm.evaluation.core.metric import Score, scored
from csm.evaluation.metrics.coded_clips import CodedClip, ProbeConfig, clip_of, scale_of
from csm.system.threads import one_thread


@one_thread()
def speaker_scores(
    train: Sequence[CodedClip],
    held_out: Sequence[CodedClip],
    rows: Callable[[CodedClip], Float[Tensor, "T C"]],
    config: ProbeConfig,
) -> list[Score]:
    """Scores whether a probe classifies a held-out clip's speaker: 1 or 0, `detail` the predicted name.

    Multinomial logistic regression with an L2 penalty on the mean and the standard deviation over a clip of
    each dimension of the vectors, standardised over the training clips.

    Args:
        train: Clips whose speakers are the classes.
        held_out: Clips of the same speakers.
        rows: Vectors of a clip's frames.
        config: How to train.

    Raises:
        ValueError: There are fewer than two speakers to train on.
    """
    names = sorted({clip.turn.speaker for clip in train})
    if len(names) < 2:
        raise ValueError(f"{len(names)} speakers to train on: expected two at least")
    features = torch.stack([_summary(rows(clip)) for clip in train])
    target = torch.tensor([names.index(clip.turn.speaker) for clip in train])
    mean, scale = scale_of(features)
    features = (features - mean) / scale
    weight = torch.zeros(features.shape[1], len(names), dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(names), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(features @ weight + bias, target) + config.ridge / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    scores = []
    with torch.no_grad():
        for clip in held_out:
            found = ((_summary(rows(clip)) - mean) / scale) @ weight + bias
            name = names[int(found.argmax())]
            right = float(name == clip.turn.speaker)
            scores.append(scored(clip_of(clip.turn), right, detail=name))
    return scores


def _summary(vectors: Float[Tensor, "T C"]) -> Float[Tensor, " C2"]:
    """Computes mean and standard deviation over a clip, float64."""
    exact = vectors.double()
    return torch.cat([exact.mean(dim=0), exact.std(dim=0, correction=0)])
