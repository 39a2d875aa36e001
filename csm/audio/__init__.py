"""Waveforms: audio files, another sample rate, pitch and loudness of each frame."""
