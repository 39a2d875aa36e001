"""Recordings without transcripts: who speaks when (voice activity, diarisation), and what (recognition)."""
