"""Which layout a folder has: the names for --layout, and what each is recognised by."""

from __future__ import annotations

from collections import Counter

from csm.data.corpora.layouts import (
    ami,
    candor,
    dailytalk,
    expresso,
    fisher,
    kaldi,
    lhotse_cuts,
    messages,
    moshi_finetune,
    nemo,
    parquet,
    rttm,
    sidecars,
    single_speaker_tables,
    subtitles,
    switchboard,
    textgrid,
    turn_table,
    whisper_json,
)
from csm.data.corpora.layouts.source import Layout
from csm.data.corpora.layouts.tree import Tree

# Corpora by their own names, which are commands of their own too.
PUBLIC = (dailytalk.LAYOUT, expresso.LAYOUT, ami.LAYOUT, candor.LAYOUT, fisher.LAYOUT, switchboard.LAYOUT)
LAYOUTS = (
    *PUBLIC,
    moshi_finetune.LAYOUT,
    whisper_json.LAYOUT,
    lhotse_cuts.LAYOUT,
    parquet.LAYOUT,
    kaldi.LAYOUT,
    messages.LAYOUT,
    nemo.LAYOUT,
    turn_table.LAYOUT,
    single_speaker_tables.LJSPEECH,
    single_speaker_tables.COMMON_VOICE,
    rttm.LAYOUT,
    textgrid.LAYOUT,
    subtitles.LAYOUT,
)
# Any audio with .txt or .json beside it: only where no other is recognised.
PLAIN = sidecars.LAYOUT
BY_NAME = {layout.name: layout for layout in (*LAYOUTS, PLAIN)}


def recognised(tree: Tree, name: str | None = None) -> tuple[Layout, str]:
    """Returns the layout of a folder, and one line on what was found.

    Args:
        tree: The folder.
        name: Name of a layout; None recognises it.

    Raises:
        ValueError: The name is unknown, or the folder has no layout or several.
    """
    if name is not None:
        if name not in BY_NAME:
            raise ValueError(f"--layout is {name!r}: expected one of {', '.join(BY_NAME)}; choose one")
        if (found := BY_NAME[name].recognise(tree)) is None:
            raise ValueError(
                f"--layout is {name}: expected {BY_NAME[name].looks_for}; found {contents(tree)}; "
                "choose another"
            )
        return BY_NAME[name], found
    matches = [(layout, found) for layout in LAYOUTS if (found := layout.recognise(tree))]
    if not matches and (found := PLAIN.recognise(tree)):
        return PLAIN, found
    if len(matches) == 1:
        return matches[0]
    if matches:
        seen = "; ".join(f"{layout.name} ({found})" for layout, found in matches)
        raise ValueError(f"--source fits several layouts: {seen}; name one with --layout")
    sought = "; ".join(f"{layout.name}: {layout.looks_for}" for layout in BY_NAME.values())
    raise ValueError(f"--source has no known layout: found {contents(tree)}; looked for {sought}")


def contents(tree: Tree) -> str:
    """Returns how many files of each ending a folder has, the most frequent first."""
    endings = Counter(path.suffix.lower() or path.name for path in tree.files)
    parts = [f"{count} {ending}" for ending, count in endings.most_common(8)]
    rest = len(tree.files) - sum(count for _, count in endings.most_common(8))
    return ", ".join(parts + ([f"{rest} others"] if rest else [])) or "no files"
