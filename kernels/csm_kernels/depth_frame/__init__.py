"""depth_frame: draws the codes of one frame with a depth decoder. Read reference.py first."""

from csm_kernels.depth_frame.api import DepthFrame, depth_frame
from csm_kernels.depth_frame.weights import DepthLayer, DepthWeights
from csm_kernels.int8_rows import Int8Rows

__all__ = ["DepthFrame", "DepthLayer", "DepthWeights", "Int8Rows", "depth_frame"]
