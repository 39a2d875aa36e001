"""CSMModel: backbone, depth decoder, cross-attention and memory."""

from csm.model.csm_model import CSMModel, CSMOutput
from csm.model.model_config import CSMConfig

__all__ = ["CSMConfig", "CSMModel", "CSMOutput"]
