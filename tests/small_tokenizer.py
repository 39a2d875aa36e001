"""A tokenizer of random weights that recovers phases: the smallest that a talker can speak through."""

from csm.tokenizer.config import TokenizerConfig
from csm.tokenizer.conversational_rvq import ConversationalRVQ


def small_tokenizer(sample_rate: int) -> ConversationalRVQ:
    """Returns six codebooks of 24 vectors, drawn from torch's generator; 640 samples a frame at 8 kHz."""
    config = TokenizerConfig(
        sample_rate=sample_rate,
        n_codebooks=6,
        codebook_size=24,
        semantic_codebooks=2,
        codebook_dim=8,
        hops_per_frame=4,
        strides=(2, 2),
        encoder_widths=(16, 16, 16),
        encoder_depths=(1, 1, 1),
        decoder_widths=(16, 16, 16),
        decoder_depths=(1, 1, 1),
        recover_phase=True,
        speaker_dim=8,
        emotion_dim=4,
    )
    tokenizer = ConversationalRVQ(config).eval()
    tokenizer.quantizer.semantic.codebooks.normal_()
    tokenizer.quantizer.acoustic.codebooks.normal_()
    return tokenizer
