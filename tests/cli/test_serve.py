"""`csm serve --style`: a name and a recording each."""

import numpy as np
import pytest
import soundfile
import torch

from csm.cli.serve import _styles
from tests.evaluation.small_voice import small_talker


def test_styles_are_the_embeddings_of_their_recordings(tiny_model, tmp_path) -> None:
    talker = small_talker(tiny_model)
    tone = (0.3 * np.sin(np.arange(8000) / 7)).astype(np.float32)
    soundfile.write(tmp_path / "calm.wav", tone, 8000, subtype="FLOAT")
    found = _styles([f"calm={tmp_path / 'calm.wav'}"], talker)
    expected = talker.with_style(torch.from_numpy(tone)[None], 8000).style
    assert [*found] == ["calm"] and torch.allclose(found["calm"], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["angry.wav"], "--style is 'angry.wav': expected NAME=FILE"),
        (["=angry.wav"], "expected NAME=FILE"),
        (["angry="], "expected NAME=FILE"),
        (["angry=nowhere.wav"], "nowhere.wav"),
    ],
)
def test_what_is_no_style_is_named(tiny_model, given, message) -> None:
    with pytest.raises(ValueError, match=message):
        _styles(given, small_talker(tiny_model))


def test_a_name_is_given_once(tiny_model, tmp_path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(4000, 0.1, np.float32), 8000)
    with pytest.raises(ValueError, match="with a name of its own"):
        _styles([f"a={tmp_path / 'a.wav'}"] * 2, small_talker(tiny_model))
