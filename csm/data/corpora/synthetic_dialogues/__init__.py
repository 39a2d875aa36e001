"""Synthetic two-speaker conversations at 24 kHz: texts out of packages, spoken by Kokoro-82M on the CPU."""
