"""The codes of one frame from the backbone's row, by the depth decoder's weights."""

from csm_kernels.depth_frame.api import DepthFrame, depth_frame
from csm_kernels.depth_frame.weights import DepthLayer, DepthWeights, Int8Rows

__all__ = ["DepthFrame", "DepthLayer", "DepthWeights", "Int8Rows", "depth_frame"]
