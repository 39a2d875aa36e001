"""Waveform <-> codes: the hierarchical residual voice tokenizer."""

from csm.tokenizer.conversational_rvq import ConversationalRVQ, EncodeInfo, TokenizerConfig

__all__ = ["ConversationalRVQ", "EncodeInfo", "TokenizerConfig"]
