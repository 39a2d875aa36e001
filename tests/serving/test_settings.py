"""A server that other machines reach has a token."""

import pytest

from csm.serving.settings import ServerSettings


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org"])
def test_beyond_the_loopback_a_token_is_needed(host) -> None:
    with pytest.raises(ValueError, match="expected a --token"):
        ServerSettings(host=host)
    assert ServerSettings(host=host, token="x").admits("x")
    assert not ServerSettings(host=host, token="x").admits("")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_on_the_loopback_none_is(host) -> None:
    assert ServerSettings(host=host).admits("")


@pytest.mark.parametrize("wrong", [{"port": 70000}, {"sessions": -1}])
def test_values_out_of_range_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match="expected"):
        ServerSettings(**wrong)
