"""Settings of a live conversation that cannot be kept are refused by their names."""

import pytest

from csm.conversation.live_config import LiveConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gap": -0.1}, "LiveConfig.gap is -0.1"),
        ({"jitter": 1.0}, "LiveConfig.jitter is 1.0: expected below ahead, 1.0"),
        ({"longest_turn": 0.0}, "longest_turn is 0.0: expected above 0 s"),
        ({"playout_delay": float("nan")}, "playout_delay is nan"),
    ],
)
def test_a_bad_value_is_named(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        LiveConfig(**settings)
