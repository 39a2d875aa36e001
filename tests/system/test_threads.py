"""Threads of torch are limited inside a block and come back after it."""

import os

import pytest
import torch

from csm.system.threads import available_cores, one_thread


def test_the_number_of_threads_comes_back_after_an_error() -> None:
    torch.set_num_threads(2)
    with pytest.raises(RuntimeError), one_thread():
        assert torch.get_num_threads() == 1
        raise RuntimeError
    assert torch.get_num_threads() == 2


def test_there_is_a_core_and_no_more_than_the_machine_has() -> None:
    assert 1 <= available_cores() <= os.cpu_count()
