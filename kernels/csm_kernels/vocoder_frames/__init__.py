"""vocoder_frames: 10 ms frames of speech by FARGAN's signal network. Read reference.py first."""

from csm_kernels.vocoder_frames.api import vocoder_frames
from csm_kernels.vocoder_frames.weights import VocoderState, VocoderWeights

__all__ = ["VocoderState", "VocoderWeights", "vocoder_frames"]
