"""Charts of the codebooks: how many of their codes occur, and how evenly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from csm.report.charts import bar_chart, legend, plot, plots


def codebook_charts(books: Mapping[str, Any] | None, semantic: int = 10) -> str:
    """Writes share in use and perplexity of every codebook; empty without statistics.

    Args:
        books: Result of `codebook_statistics`.
        semantic: Number of semantic codebooks, which come first.
    """
    if not books:
        return ""
    usage, perplexity = books["usage"], books["perplexity"]
    labels = [
        f"codebook {place}: {100 * share:.0f} % used, perplexity {perplexity[place]:.0f}, "
        f"{books['dead'][place]} dead"
        for place, share in enumerate(usage)
    ]
    styles = ["resynthesis" if place < semantic else "recording" for place in range(len(usage))]
    size = books["codebook_size"]
    rows = [
        ("Share of codes in use", usage, 1.0),
        (f"Perplexity (of {size})", perplexity, float(max(size / 4, *perplexity))),
    ]
    charts = [
        plot(
            title,
            bar_chart(
                values,
                title=title,
                styles=styles,
                labels=labels,
                top=top * 1.02,
                x_title="codebook",
                y_title="",
            ),
        )
        for title, values, top in rows
    ]
    shown = [("resynthesis", f"semantic, 0 to {semantic - 1}"), ("recording", "acoustic")]
    return legend(shown) + plots(charts)
