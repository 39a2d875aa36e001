"""csm: training conversational speech models, from recorded conversations to a talking model."""

__version__ = "0.1.0"
