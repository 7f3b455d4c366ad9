"""Phase 2 is measured where its agent acts: inside the sectors."""

from pathlib import Path

import numpy as np
import pytest

from hrl_sarp.contracts import Market
from hrl_sarp.features.labels import standardise_cross_section
from hrl_sarp.training.pretrain.micro import MicroTask
from tests import factories, tiny_runs

N_SECTORS, SLOTS, N_DAYS = 4, 6, 500
PENALTY = 0.1
CORRELATION = 0.6
"""Of feature and next return inside a sector: 0.003 z beside noise of 0.004."""
PLANTED = 6 / np.pi / (SLOTS + 1) * (np.arcsin(0.6) + (SLOTS - 2) * np.arcsin(0.3))
"""What Spearman's coefficient of six normal pairs is on average (Moran 1948): 0.51."""


def market_of_noisy_sectors() -> Market:
    """Inside a sector z foretells the next session. Sectors move by 2 % at random.

    The feature is z plus a number that its sector shares and that foretells nothing.
    """
    rng = np.random.default_rng(0)
    sector_of = np.repeat(np.arange(N_SECTORS), SLOTS)
    z, noise = rng.normal(size=(2, N_DAYS, N_SECTORS * SLOTS))
    shared, moves = rng.normal(size=(2, N_DAYS, N_SECTORS))
    intraday = 0.004 * noise + 0.02 * moves[:, sector_of]
    intraday[1:] += 0.003 * z[:-1]
    features = (z + 2 * shared[:, sector_of])[:, :, None]
    given = {"stock_features": features, "feature_names": ("signal",)}
    return factories.market_with(np.zeros_like(intraday), intraday, sector_of, **given)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> MicroTask:
    """The task of phase 2 on that market, with an agent whose scores are the signal's rank."""
    config = tiny_runs.tiny_config(data={"micro_label_days": 1})
    market = tiny_runs.with_nodes(market_of_noisy_sectors(), config)
    folder: Path = tmp_path_factory.mktemp("noisy")
    task = MicroTask(tiny_runs.context_of(market, config, folder))
    task.agent.actor.network.direct.weight.data.fill_(0.1)
    return task


def test_alpha_inside_sectors_is_seen_however_noisy_the_sectors_are(task: MicroTask) -> None:
    found = task.compare_with_ridge(PENALTY)
    error = found["ridge_rank_ic_se"]
    assert error < 0.03
    assert found["ridge_rank_ic"] == pytest.approx(PLANTED, abs=3 * error)
    assert found["rank_ic"] == pytest.approx(PLANTED, abs=3 * error)
    # over all stocks the sectors' moves drown it
    assert found["ridge_universe_rank_ic"] < PLANTED / 2
    assert found["universe_rank_ic"] < PLANTED / 2


def test_validation_reports_both_under_their_names(task: MicroTask) -> None:
    compared, (_, validated) = task.compare_with_ridge(PENALTY), task.validate()
    for name in ("rank_ic", "rank_ic_se", "universe_rank_ic", "universe_rank_ic_se"):
        assert validated[f"val_{name}"] == pytest.approx(compared[name])


def test_the_target_of_training_leaves_the_moves_of_sectors_out(task: MicroTask) -> None:
    by_sector = task.label.reshape(N_DAYS, N_SECTORS, SLOTS)
    calm = (by_sector - by_sector.mean(axis=2, keepdims=True)).reshape(N_DAYS, -1)
    expected = standardise_cross_section(calm.reshape(-1, SLOTS), task.usable.reshape(-1, SLOTS))
    used = task.standardised.numpy().reshape(-1, SLOTS)
    np.testing.assert_allclose(used, expected, atol=1e-5)
