"""Measures of networks and gradients, each against numbers worked out by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from hrl_sarp.agents.measures import (
    GradientNorms,
    as_numbers,
    critic_measures,
    dirichlet_measures,
    goal_measures,
    score_measures,
    spread,
)
from hrl_sarp.agents.ppo.networks import SectorDirichlet


def two_parameters() -> tuple[nn.Parameter, nn.Parameter]:
    return nn.Parameter(torch.tensor([1.0])), nn.Parameter(torch.tensor([1.0]))


def test_norms_are_those_before_clipping_and_the_share_is_of_the_whole() -> None:
    actor, critic = two_parameters()
    with GradientNorms({"actor": [actor], "critic": [critic]}) as norms:
        for scale in (1.0, 2.0):
            actor.grad = critic.grad = None
            (scale * (3 * actor + 4 * critic)).sum().backward()
            nn.utils.clip_grad_norm_([actor, critic], 0.1)
    # gradients 3 and 4, then 6 and 8: together 5 and 10, one of them above 6
    found = norms.summary(limit=6.0)
    assert found == pytest.approx({"actor_grad_norm": 4.5, "critic_grad_norm": 6.0, "clipped": 0.5})


def test_a_frozen_group_is_left_out() -> None:
    actor, critic = two_parameters()
    actor.requires_grad = False
    with GradientNorms({"actor": [actor], "critic": [critic]}) as norms:
        (actor * critic).sum().backward()
    assert norms.summary(limit=0.5) == {"critic_grad_norm": 1.0, "clipped": 1.0}


def test_nothing_is_noted_outside_the_context() -> None:
    actor, critic = two_parameters()
    with GradientNorms({"actor": [actor], "critic": [critic]}) as norms:
        pass
    (actor * critic).sum().backward()
    assert norms.summary(limit=1.0) == {}


def test_several_parameters_of_a_group_have_one_norm() -> None:
    first, second = two_parameters()
    with GradientNorms({"actor": [first, second]}) as norms:
        (3 * first + 4 * second).sum().backward()
    assert norms.summary(limit=5.5) == {"actor_grad_norm": 5.0, "clipped": 0.0}


def test_spread_names_mean_deviation_and_range() -> None:
    # deviations from 2 are -1, -1, 2: variance 2
    found = spread("advantage", np.array([1.0, 1.0, 4.0]))
    assert found == pytest.approx(
        {
            "advantage_mean": 2.0,
            "advantage_std": 2**0.5,
            "advantage_min": 1.0,
            "advantage_max": 4.0,
        }
    )


def test_goals_that_switch_sectors_are_concentrated_and_move() -> None:
    shares = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    regime = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.2, 0.2]])
    found = as_numbers(goal_measures(shares, regime))
    # each sector is 0 or 1 half of the time: deviation 0.5; P(bear) is 0.4 +- 0.2
    assert found == pytest.approx(
        {"goal_hhi": 1.0, "goal_std": 0.5, "p_bear": 0.4, "p_bear_std": 0.2}
    )


def test_constant_even_goals_show_neither() -> None:
    shares = torch.full((3, 4), 0.25)
    found = as_numbers(goal_measures(shares, torch.full((3, 3), 1 / 3)))
    assert found["goal_hhi"] == pytest.approx(0.25)
    assert found["goal_std"] == found["p_bear_std"] == 0.0


def test_kappa_is_read_back_from_the_distribution_unlisted_sectors_or_not() -> None:
    listed = torch.tensor([[True, True, False], [True, True, True]])
    shares = SectorDirichlet(torch.zeros(2, 3), torch.tensor([10.0, 30.0]), listed)
    found = as_numbers(dirichlet_measures(shares))
    assert found["kappa"] == pytest.approx(20.0)
    assert found["entropy"] == pytest.approx(float(shares.entropy().mean()))


def test_scores_are_measured_where_they_count() -> None:
    scores = torch.tensor([[1.0, -1.0, 0.99], [0.0, 0.0, 0.0]])
    tradable = torch.tensor([[True, True, False], [True, True, False]])
    # 1, -1, 0, 0: deviation sqrt(2 / 4), half of them beyond 0.95; the third slot does not count
    found = as_numbers(score_measures(scores, tradable))
    assert found == pytest.approx({"score_std": 0.5**0.5, "score_saturation": 0.5})


def test_values_are_measured_beside_their_targets() -> None:
    first, second = torch.tensor([1.0, 3.0]), torch.tensor([2.0, 3.0])
    found = as_numbers(critic_measures((first, second), torch.tensor([0.0, 4.0])))
    assert found == pytest.approx(
        {
            "q1_mean": 2.0,
            "q2_mean": 2.5,
            "q_std": 1.0,
            "q_min": 1.0,
            "q_max": 3.0,
            "target_mean": 2.0,
            "td_error": 1.0,  # |1 - 0| and |3 - 4|
            "twin_gap": 0.5,  # |1 - 2| and |3 - 3|
        }
    )
