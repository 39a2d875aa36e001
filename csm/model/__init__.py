"""CSMModel: the model as a user meets it, above generation and file formats."""

from csm.model.csm_model import CSMModel
from csm.network.model_config import CSMConfig
from csm.network.outputs import CSMOutput

__all__ = ["CSMConfig", "CSMModel", "CSMOutput"]
