"""Five tensor operations of the speech stack: tensors in, tensors out, independent of `csm`.

`rvq_search` finds the nearest code at every level of a residual quantizer, `ema_update` moves the codebooks
towards the rows assigned to them, `interpolated_attention` attends to keys resampled to another length,
`depth_frame` draws the codes of a frame with a depth decoder's weights, `vocoder_frames` writes samples with
a neural vocoder's. Each folder's reference.py is its specification and the place to start.
"""

from csm_kernels.depth_frame import DepthFrame, DepthLayer, DepthWeights, Int8Rows, depth_frame
from csm_kernels.ema_update import REVIVALS_PER_STEP, Assignment, ema_update, ema_update_stacks
from csm_kernels.interpolated_attention import interpolated_attention
from csm_kernels.native import has_compiled
from csm_kernels.rvq_search import RVQSearchResult, rvq_search
from csm_kernels.vocoder_frames import VocoderState, VocoderWeights, vocoder_frames

__all__ = [
    "REVIVALS_PER_STEP",
    "Assignment",
    "DepthFrame",
    "DepthLayer",
    "DepthWeights",
    "Int8Rows",
    "RVQSearchResult",
    "VocoderState",
    "VocoderWeights",
    "depth_frame",
    "ema_update",
    "ema_update_stacks",
    "has_compiled",
    "interpolated_attention",
    "rvq_search",
    "vocoder_frames",
]
