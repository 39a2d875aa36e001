"""Waveform <-> codes: the hierarchical residual voice tokenizer."""

from csm.tokenizer.config import TokenizerConfig
from csm.tokenizer.conversational_rvq import ConversationalRVQ, EncodeInfo

__all__ = ["ConversationalRVQ", "EncodeInfo", "TokenizerConfig"]
