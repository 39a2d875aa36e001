"""csm: training conversational speech models, from recorded conversations to a talking model.

The public names are imported when they are first used, so that `import csm` loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from csm.generation.prompt_turn import PromptTurn
    from csm.generation.talker import Talker
    from csm.losses import ConversationTargets, conversational_loss
    from csm.model import CSMModel
    from csm.tokenizer import ConversationalRVQ

__version__ = "0.2.0"

__all__ = [
    "CSMModel",
    "ConversationTargets",
    "ConversationalRVQ",
    "PromptTurn",
    "Talker",
    "conversational_loss",
]

# Public name -> module that defines it.
_MODULES = {
    "CSMModel": "csm.model",
    "ConversationTargets": "csm.losses",
    "ConversationalRVQ": "csm.tokenizer",
    "PromptTurn": "csm.generation.prompt_turn",
    "Talker": "csm.generation.talker",
    "conversational_loss": "csm.losses",
}


def __getattr__(name: str) -> object:
    """Imports a public name at its first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module 'csm' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
