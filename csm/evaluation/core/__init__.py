"""The engine: metrics measured on sets of clips, summarised into a report."""
