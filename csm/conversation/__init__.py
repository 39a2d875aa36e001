"""A live conversation: the voice listens, answers, and falls silent when it is interrupted."""
