"""Principal components of data whose axes are known."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hrl_sarp.encoders.networks.projection import fit_projection, load_projection, save_projection
from hrl_sarp.errors import CheckpointError, DataError, MissingArtifactError

FACTS = {"encoder_hash": "abc", "fitted_from": "2001-01-02", "fitted_to": "2014-12-31"}


def stretched(n_windows: int = 4000) -> np.ndarray:
    """Return points with deviations 3, 1 and 0.1 along three axes that are turned by 45 degrees."""
    rng = np.random.default_rng(0)
    along = rng.normal(size=(n_windows, 3)) * [3.0, 1.0, 0.1]
    half = np.sqrt(0.5)
    axes = np.array([[half, half, 0.0], [half, -half, 0.0], [0.0, 0.0, 1.0]])
    return (along @ axes + [5.0, -2.0, 1.0]).astype(np.float32)


def test_components_are_the_longest_axes_with_unit_variance() -> None:
    points = stretched()
    projection = fit_projection(points, 2)
    found = projection(torch.from_numpy(points)).numpy()
    np.testing.assert_allclose(found.mean(axis=0), 0.0, atol=1e-4)
    np.testing.assert_allclose(np.cov(found.T, bias=True), np.eye(2), atol=1e-3)
    # the first axis is (1, 1, 0) / sqrt(2), divided by its deviation 3; 4000 draws are 2 % off
    expected = np.array([np.sqrt(0.5) / 3, np.sqrt(0.5) / 3, 0.0])
    np.testing.assert_allclose(projection.components[:, 0].numpy(), expected, atol=0.02)
    # 9 + 1 of 9 + 1 + 0.01
    assert projection.explained == pytest.approx(10 / 10.01, abs=1e-3)


def test_the_same_points_give_the_same_signs_whatever_their_order() -> None:
    points = stretched()
    shuffled = points[np.random.default_rng(1).permutation(len(points))]
    first, second = fit_projection(points, 3), fit_projection(shuffled, 3)
    np.testing.assert_allclose(first.components, second.components, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(first.components, fit_projection(points, 3).components)


def test_an_axis_without_variance_gives_zero() -> None:
    points = stretched()
    points[:, 2] = 1.0
    projection = fit_projection(points, 3)
    assert not projection.components[:, 2].any()


@pytest.mark.parametrize(
    ("points", "size"),
    [(stretched(3), 3), (stretched(), 4), (np.ones((50, 3), dtype=np.float32), 2)],
    ids=["too few windows", "too few columns", "all alike"],
)
def test_points_without_such_axes_are_refused(points: np.ndarray, size: int) -> None:
    with pytest.raises(DataError, match="cannot fit"):
        fit_projection(points, size)


def test_a_projection_survives_the_disk_with_its_span(tmp_path: Path) -> None:
    projection = fit_projection(stretched(), 2)
    save_projection(tmp_path / "projection.safetensors", projection, FACTS)
    found, facts = load_projection(tmp_path / "projection.safetensors", "this test")
    assert torch.equal(found.mean, projection.mean)
    assert torch.equal(found.components, projection.components)
    assert found.explained == projection.explained
    assert facts == FACTS


def test_a_missing_or_damaged_file_names_the_command(tmp_path: Path) -> None:
    path = tmp_path / "projection.safetensors"
    with pytest.raises(MissingArtifactError, match="run `this test` first"):
        load_projection(path, "this test")
    save_projection(path, fit_projection(stretched(), 2), FACTS)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(CheckpointError, match="run `this test` again"):
        load_projection(path, "this test")


def test_a_changed_fact_is_found_as_a_changed_number_is(tmp_path: Path) -> None:
    path = tmp_path / "projection.safetensors"
    save_projection(path, fit_projection(stretched(), 2), FACTS)
    whole = path.read_bytes()
    for value in set(FACTS.values()):
        at = whole.index(value.encode())
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(CheckpointError, match="checksum"):
            load_projection(path, "this test")
