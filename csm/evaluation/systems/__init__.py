"""Systems that clips pass through: classical codecs, a tokenizer's codebooks, models without a part."""
