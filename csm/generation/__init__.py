"""Generation: sampling, sessions, streaming audio, and the Talker above them."""
