"""A server is loaded in real time: each block has a delay, and a session that fails is named."""

import importlib.util
from pathlib import Path

import pytest
import torch

from csm.evaluation.conversation.load import LoadOptions, Session, audio_of, figures, run_load
from csm.evaluation.conversation.users import RATE, ScriptedUser

pytest.importorskip("uvicorn")
spec = importlib.util.spec_from_file_location("server", Path(__file__).parents[2] / "serving" / "conftest.py")
server = importlib.util.module_from_spec(spec)
spec.loader.exec_module(server)
serve, talker = server.serve, server.talker

TONE = 0.3 * torch.sin(torch.arange(RATE) / 5)
USERS = [ScriptedUser(str(n), "barge_in", TONE, TONE[: RATE // 2]) for n in range(2)]


def test_users_talk_in_real_time_and_the_one_too_many_is_named(serve):
    options = LoadOptions(url=f"http://{serve(sessions=1)}", sessions=2, minutes=0.03)
    found = run_load(options, USERS)
    assert "all 1 places are taken" in [*found["failed"].values()][0]
    assert found["blocks"] == 90 and found["delay_ms"]["p99"] > 0
    assert found["resident_mb"]["first"] > 50, "the server's process holds torch"


def test_figures_count_late_blocks_and_events():
    session = Session(delays=[1.0] * 98 + [30.0, 50.0], events=["said", "underrun", "said"])
    found = figures([session, Session(failure="refused")], [100.0, 130.0, *[110.0] * 18, 120.0])
    assert found["late"] == 2 and found["delay_ms"]["p50"] == 1.0 and found["delay_ms"]["p100"] == 50.0
    assert found["events"] == {"said": 2, "underrun": 1} and found["failed"] == {1: "refused"}
    assert found["resident_mb"] == {"first": 100.0, "after_a_tenth": 110.0, "last": 120.0, "most": 130.0}


def test_each_user_begins_with_another_turn():
    first, second = (audio_of(USERS, number) for number in (0, 1))
    assert len(first) == len(second) == round(2 * (1.5 + 6.0) * RATE)


@pytest.mark.parametrize("bad", [{"url": "ftp://x"}, {"url": "http://x", "sessions": 0}])
def test_options_that_cannot_be_are_refused(bad):
    with pytest.raises(ValueError, match="expected"):
        LoadOptions(**bad)


def test_no_server_is_said_in_one_line():
    with pytest.raises(ValueError, match="no server at .*start csm serve first"):
        run_load(LoadOptions(url="http://127.0.0.1:9"), USERS)
