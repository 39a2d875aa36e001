"""Training: one visible loop over engines that never lose work."""
