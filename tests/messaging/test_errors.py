"""Errors cross processes whole."""

import pickle

import pytest

from messaging.errors import (
    FrameRefused,
    InputRefused,
    InvariantViolated,
    OmnimarginError,
    ReplayDiverged,
)


@pytest.mark.parametrize(
    "error",
    [
        InputRefused("--seeds", expected="one", found="two"),
        FrameRefused("expected a frame"),
        ReplayDiverged(3, 4, "hub", expected="a", found="b"),
        InvariantViolated("INV1", "nothing"),
    ],
)
def test_an_error_comes_out_of_another_process_as_it_was(error: OmnimarginError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.exit_code == error.exit_code
    assert vars(again) == vars(error)
