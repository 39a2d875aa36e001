"""Judging speech: one module per area, functions on arrays, and one report.

``intelligibility``, ``speaker``, ``naturalness``, ``codec``, ``prosody``, ``emotion``,
``turn_taking`` and ``latency`` measure; ``statistics`` summarises without letting a failure
improve a score; ``suite`` reads a run and runs everything; ``report`` writes the page;
``comparison`` weighs two reports against each other. ``codec_ladder`` judges a tokenizer beside
classical codecs and ``codec_page`` writes its page. Judges are loaded when first used, so
importing this package costs nothing and needs none of them.
"""
