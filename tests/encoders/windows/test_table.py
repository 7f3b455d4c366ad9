import numpy as np
import torch

from hrl_sarp.encoders.windows.cut import Windows
from hrl_sarp.encoders.windows.table import WindowTable, fit_scaler


def windows(train: list[int]) -> Windows:
    others = (np.array([6]), np.array([8]))
    return Windows(np.array(train), *others, length=2, dropped={})


def test_scaler_sees_training_bars_only_and_each_once() -> None:
    column = np.array([1, 2, 6, 99, 99, 99, 99, 99, 99, 99], np.float32)
    features = np.stack([column, np.full(10, 0.1, np.float32)], axis=1)
    scaler = fit_scaler(features, windows([0, 1]))  # bars 0 to 2; bar 1 is in both windows
    # mean 3, squared distances 4 + 1 + 9
    np.testing.assert_allclose(scaler.mean, [3, 0.1], rtol=1e-6)
    np.testing.assert_allclose(scaler.std, [np.sqrt(14 / 3), 1], rtol=1e-6)


def test_table_is_in_standard_deviations_of_the_training_bars() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(5, 3, size=(10, 2)).astype(np.float32)
    cut = windows([0, 2, 4])
    scaler = fit_scaler(features, cut)
    table = WindowTable.place(scaler.apply(features), cut, torch.device("cpu"))
    trained = table.table[:6].double()
    assert torch.allclose(trained.mean(dim=0), torch.zeros(2, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(trained.std(dim=0, correction=0), torch.ones(2, dtype=torch.float64))
    assert (table.n_features, table.length, table.test.tolist()) == (2, 2, [8])
    np.testing.assert_allclose(table.table.numpy() * scaler.std + scaler.mean, features, rtol=1e-5)
