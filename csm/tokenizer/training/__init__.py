"""What only training a tokenizer needs: losses, discriminators, and the start at principal components."""
