"""The small run, corpus and tokenizer of the evaluation's tests."""

from tests.evaluation.conftest import real_clips, run_folder, small_corpus, tiny_tokenizer  # noqa: F401
