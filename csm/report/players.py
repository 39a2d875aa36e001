"""Players of the page: a button, the waveform as progress bar and the length."""

from __future__ import annotations

from html import escape

from csm.report.media import Sound


def player(sound: Sound | None, style: str, label: str) -> str:
    """A button, the waveform as progress bar, and the length; a plain word where there is no sound."""
    if sound is None:
        return '<p class="soft">no audio</p>'
    wave = f'<svg viewBox="0 0 90 20" preserveAspectRatio="none"><path d="{sound.outline}"/></svg>'
    return (
        f'<div class="player {style}"><button aria-label="{escape(label, quote=True)}">'
        '<svg class="play" viewBox="0 0 12 12"><path d="M2.5 0.8v10.4L11 6z"/></svg>'
        '<svg class="pause" viewBox="0 0 12 12"><path d="M2 1h3v10H2zM7 1h3v10H7z"/></svg></button>'
        f'<div class="wave">{wave}{wave.replace("<svg ", "<svg class=done ", 1)}</div>'
        f"<time>{sound.duration:.1f} s</time>"
        f'<audio preload="none" src="{sound.uri}"></audio></div>'
    )
