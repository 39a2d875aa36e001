"""Metrics, one file per metric or family of metrics that share an evaluator."""
