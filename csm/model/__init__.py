"""CSMModel: the model as a user meets it, above generation and file formats."""

from csm.network.csm_model import CSMModel, CSMOutput
from csm.network.model_config import CSMConfig

__all__ = ["CSMConfig", "CSMModel", "CSMOutput"]
