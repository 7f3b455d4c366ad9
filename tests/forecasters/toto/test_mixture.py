"""Mixtures of Student's t say in closed form what draws say with noise."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from hrl_sarp.forecasters.toto import StudentTMixture

LEVELS = (0.001, 0.1, 0.5, 0.75, 0.999)


def mixture(seed: int, n_steps: int = 4, k: int = 3, spread: float = 1.0) -> StudentTMixture:
    rng = np.random.default_rng(seed)
    df = 2.0 + rng.exponential(3.0, (n_steps, k)) * 10.0 ** rng.integers(-3, 3, (n_steps, k))
    scale = np.exp(spread * rng.normal(size=(n_steps, k)))
    weights = rng.dirichlet(np.ones(k) / 2, n_steps)
    parts = (df, 3.0 * rng.normal(size=(n_steps, k)), scale, weights)
    return StudentTMixture(*(torch.from_numpy(part) for part in parts))


@given(st.integers(0, 10_000), st.sampled_from([1, 2, 7]), st.sampled_from([0.0, 1.0, 6.0]))
def test_quantiles_invert_the_distribution_and_ascend(seed: int, k: int, spread: float) -> None:
    found = mixture(seed, k=k, spread=spread)
    quantiles = found.quantiles(LEVELS)
    assert bool((quantiles.diff(dim=-1) >= 0).all())
    for at, level in enumerate(LEVELS):
        reached = found.cdf(quantiles[..., at])
        # where scales differ by e^20, neighbouring floats may lie on both sides of a jump
        below, above = (
            found.cdf(torch.from_numpy(np.nextafter(quantiles[..., at].numpy(), end)))
            for end in (-np.inf, np.inf)
        )
        near = (reached - level).abs() < 1e-11
        assert bool((near | ((below <= level) & (level <= above))).all())


@pytest.mark.parametrize("seed", range(5))
def test_one_component_is_students_t(seed: int) -> None:
    found = mixture(seed, k=1)
    df, loc, scale, _ = (part[:, 0].numpy() for part in found.parts)
    theirs = stats.t(df, loc, scale)
    for at, level in enumerate(LEVELS):
        ours = found.quantiles(LEVELS)[:, at].numpy()
        assert ours == pytest.approx(theirs.ppf(level), rel=1e-7, abs=1e-9)
    x = torch.linspace(-3.0, 3.0, 4, dtype=torch.float64)
    assert found.log_prob(x).numpy() == pytest.approx(theirs.logpdf(x.numpy()), rel=1e-9)


def test_moments_are_integrals_of_the_density() -> None:
    df = torch.tensor([[5.0, 9.0, 30.0]], dtype=torch.float64)
    loc = torch.tensor([[-1.0, 0.5, 2.0]], dtype=torch.float64)
    scale = torch.tensor([[0.5, 1.0, 0.2]], dtype=torch.float64)
    weights = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
    found = StudentTMixture(df, loc, scale, weights)

    def moment(x: float, power: int) -> float:
        density = found.log_prob(torch.tensor([x], dtype=torch.float64)).exp()
        return x**power * float(density)

    first, second = (
        integrate.quad(moment, -200, 200, args=(power,), limit=500, points=[-1, 0.5, 2])[0]
        for power in (1, 2)
    )
    assert float(found.mean) == pytest.approx(first, rel=1e-6)
    assert float(found.variance) == pytest.approx(second - first**2, rel=1e-4)


def test_own_draws_are_uniform_through_the_distribution_function() -> None:
    found = mixture(3, n_steps=1).repeat(20_000)
    uniforms = torch.rand(
        (20_000, 3), generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    reached = found.cdf(found.draw(uniforms))
    assert stats.kstest(reached.numpy(), "uniform").pvalue > 0.01
    # another mixture does not explain them
    assert (
        stats.kstest(mixture(4, n_steps=1).repeat(20_000).cdf(found.draw(uniforms)), "uniform")[1]
        < 1e-6
    )


def test_moving_and_stretching_moves_quantiles_alike() -> None:
    found = mixture(8)
    shift, factor = torch.tensor([1.0, -5.0, 0.0, 100.0]), torch.tensor([1.0, 0.1, 7.0, 3.0])
    moved = found.moved(shift.double(), factor.double()).quantiles(LEVELS)
    expected = shift[:, None] + factor[:, None] * found.quantiles(LEVELS)
    assert torch.allclose(moved, expected, rtol=1e-9, atol=1e-9)


def test_a_component_that_is_almost_a_point_has_its_quantile_there() -> None:
    parts = [[3.0, 3.0]], [[-4.0, 9.0]], [[1e-7, 1e-7]], [[0.4, 0.6]]
    found = StudentTMixture(*(torch.tensor(part, dtype=torch.float64) for part in parts))
    quantiles = found.quantiles((0.1, 0.3, 0.5, 0.9))[0]
    assert quantiles.tolist() == pytest.approx([-4.0, -4.0, 9.0, 9.0], abs=1e-5)


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_step_without_a_distribution_has_no_quantiles(part: int, value: float) -> None:
    parts = [tensor.clone() for tensor in mixture(1).parts]
    parts[part][2, 0] = value
    quantiles = StudentTMixture(*parts).quantiles(LEVELS)
    assert bool(quantiles[2].isnan().all())
    rest = [0, 1, 3]
    assert torch.equal(quantiles[rest], mixture(1).quantiles(LEVELS)[rest])
