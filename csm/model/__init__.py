"""CSMModel: backbone, depth decoder, cross-attention and memory."""

from csm.model.csm_model import CSMConfig, CSMModel, CSMOutput

__all__ = ["CSMConfig", "CSMModel", "CSMOutput"]
