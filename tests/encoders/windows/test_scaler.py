"""One scaler: moments, the floor of a deviation, and the file format."""

from typing import Any

import numpy as np
import pytest
import torch

from hrl_sarp.encoders.windows.scaler import SMALLEST_SPREAD, Scaler
from hrl_sarp.errors import CheckpointError


def test_all_axes_but_the_last_are_rows() -> None:
    values = np.random.default_rng(0).normal(2, 3, (4, 5, 2)).astype(np.float32)
    whole, flat = Scaler.fit(values), Scaler.fit(values.reshape(20, 2))
    np.testing.assert_array_equal(whole.mean, flat.mean)
    np.testing.assert_array_equal(whole.std, flat.std)


def test_spread_of_the_last_digit_is_rounding_and_more_is_movement() -> None:
    # a price of 10,000 in float32 has digits of 0.001; of a share, 1 is the size that counts
    mean = np.array([10_000.0, 10_000.0, 0.01, 0.01])
    std = SMALLEST_SPREAD * np.array([9_000.0, 11_000.0, 0.9, 1.1])
    assert (Scaler.of(mean, std).std == 1).tolist() == [True, False, True, False]


def test_arrays_and_tensors_are_scaled_alike() -> None:
    scaler = Scaler.of(np.array([1.0, 2.0]), np.array([2.0, 4.0]))
    values = np.array([[3.0, 2.0], [np.nan, 6.0]], dtype=np.float32)
    np.testing.assert_array_equal(scaler.apply(values), [[1.0, 0.0], [np.nan, 1.0]])
    np.testing.assert_array_equal(
        scaler.apply_to(torch.from_numpy(values)).numpy(), scaler.apply(values)
    )


def test_plain_values_are_read_back() -> None:
    scaler = Scaler.of(np.array([1.0, 2.5]), np.array([2.0, 0.0]))
    read = Scaler.from_plain(scaler.as_plain(), 2, "a file", "a command")
    assert read.as_plain() == {"mean": [1.0, 2.5], "std": [2.0, 1.0]}


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, "a file: mean must be 2 finite numbers, found None; run `a command` again"),
        ({"mean": [0.0, 1.0]}, "std must be 2 finite numbers"),
        ({"mean": [0.0], "std": [1.0, 1.0]}, "mean must be 2 finite numbers"),
        ({"mean": [0.0, 1.0], "std": [1.0, float("nan")]}, "std must be 2 finite numbers"),
        ({"mean": [0.0, 1.0], "std": [1.0, 0.0]}, "std must be above 0"),
    ],
)
def test_what_is_no_scaler_is_refused(found: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        Scaler.from_plain(found, 2, "a file", "a command")
