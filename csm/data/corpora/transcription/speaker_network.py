"""CAM++ (Wang et al. 2023, arXiv:2303.00332): speaker embeddings of log mel frames, in eval mode.

The network of the weights "speech_campplus_sv_zh_en_16k-common_advanced" of 3D-Speaker (Apache-2.0), whose
names its modules have. It is written after the reference (`speakerlab/models/campplus`): the last batch
normalization has no ReLU behind it.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

MELS, WIDTH = 80, 192
CHANNELS, STEM, GROWTH, HIDDEN = 32, 128, 32, 128
#: Layers and dilation of each dense block.
DENSE_BLOCKS = ((12, 1), (24, 2), (16, 2))
#: Frames at 20 ms over which a context mean is taken.
CONTEXT = 100


class SpeakerNetwork(nn.Module):
    """Log mel frames [B, T, 80], their mean over T subtracted, to embeddings [B, 192].

    Frames are 10 ms apart (Kaldi's filter bank); T is at least 4.
    """

    def __init__(self) -> None:
        super().__init__()
        self.head = _Head()
        width = CHANNELS * MELS // 8
        parts: OrderedDict[str, nn.Module] = OrderedDict(
            tdnn=_named(linear=nn.Conv1d(width, STEM, 5, 2, 2, bias=False), nonlinear=_norm_relu(STEM))
        )
        width = STEM
        for number, (layers, dilation) in enumerate(DENSE_BLOCKS, 1):
            parts[f"block{number}"] = _DenseBlock(width, layers, dilation)
            width += layers * GROWTH
            halved = nn.Conv1d(width, width // 2, 1, bias=False)
            parts[f"transit{number}"] = _named(nonlinear=_norm_relu(width), linear=halved)
            width //= 2
        parts["out_nonlinear"] = _norm_relu(width)
        parts["stats"] = _MeanAndDeviation()
        parts["dense"] = _named(
            linear=nn.Conv1d(2 * width, WIDTH, 1, bias=False),
            nonlinear=_named(batchnorm=nn.BatchNorm1d(WIDTH, affine=False)),
        )
        self.xvector = nn.Sequential(parts)

    def forward(self, frames: Float[Tensor, "B T 80"]) -> Float[Tensor, "B 192"]:
        """Returns embeddings, which are not of unit length."""
        return self.xvector(self.head(frames.transpose(1, 2))).squeeze(2)


class _Head(nn.Module):
    """Residual 2-d convolutions that reduce the mel axis by eight: [B, 80, T] to [B, 320, T]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv2d(1, 1), nn.BatchNorm2d(CHANNELS)
        self.layer1 = nn.Sequential(_Residual(2), _Residual(1))
        self.layer2 = nn.Sequential(_Residual(2), _Residual(1))
        self.conv2, self.bn2 = _conv2d(CHANNELS, 2), nn.BatchNorm2d(CHANNELS)

    def forward(self, mels: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(mels.unsqueeze(1))))
        x = self.layer2(self.layer1(x))
        return F.relu(self.bn2(self.conv2(x))).flatten(1, 2)


class _Residual(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv2d(CHANNELS, stride), nn.BatchNorm2d(CHANNELS)
        self.conv2, self.bn2 = _conv2d(CHANNELS, 1), nn.BatchNorm2d(CHANNELS)
        self.shortcut = nn.Sequential()
        if stride > 1:
            reduced = nn.Conv2d(CHANNELS, CHANNELS, 1, (stride, 1), bias=False)
            self.shortcut = nn.Sequential(reduced, nn.BatchNorm2d(CHANNELS))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(inner + self.shortcut(x))


class _DenseBlock(nn.ModuleDict):
    """Layers that each read all layers before them."""

    def __init__(self, width: int, layers: int, dilation: int) -> None:
        super().__init__({f"tdnnd{i + 1}": _DenseLayer(width + i * GROWTH, dilation) for i in range(layers)})

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.values():
            x = torch.cat([x, layer(x)], dim=1)
        return x


class _DenseLayer(nn.Module):
    """A dilated convolution, masked by what its surroundings and the whole window are on average."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.nonlinear1, self.linear1 = _norm_relu(width), nn.Conv1d(width, HIDDEN, 1, bias=False)
        self.nonlinear2 = _norm_relu(HIDDEN)
        local = nn.Conv1d(HIDDEN, GROWTH, 3, padding=dilation, dilation=dilation, bias=False)
        self.cam_layer = nn.ModuleDict(
            {
                "linear_local": local,
                "linear1": nn.Conv1d(HIDDEN, HIDDEN // 2, 1),
                "linear2": nn.Conv1d(HIDDEN // 2, GROWTH, 1),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.nonlinear2(self.linear1(self.nonlinear1(x)))
        near = F.avg_pool1d(x, CONTEXT, CONTEXT, ceil_mode=True)
        near = near.repeat_interleave(CONTEXT, dim=2)[..., : x.shape[2]]
        mask = self.cam_layer["linear1"](x.mean(2, keepdim=True) + near)
        return self.cam_layer["linear_local"](x) * self.cam_layer["linear2"](F.relu(mask)).sigmoid()


class _MeanAndDeviation(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.mean(2), x.std(2)], dim=1).unsqueeze(2)


def _conv2d(width: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(width, CHANNELS, 3, (stride, 1), 1, bias=False)


def _norm_relu(width: int) -> nn.Sequential:
    return _named(batchnorm=nn.BatchNorm1d(width), relu=nn.ReLU())


def _named(**modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(modules))
