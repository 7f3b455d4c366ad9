"""Paths are drawn with the probabilities asked for, the same with a cache as without."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from hrl_sarp.errors import ForecastError
from hrl_sarp.forecasters.kronos.sampling import (
    CachedSteps,
    Context,
    RecomputedSteps,
    Sampling,
    draw_paths,
)
from tests.forecasters.kronos.tiny import every_shape, networks, stamps, tokens

LOGITS = torch.tensor([1.0, 3.0, 0.0, 2.0])


@pytest.mark.parametrize("s2_positions", ["reference", "trained"])
@pytest.mark.parametrize(("n_paths", "n_padding"), [(1, 0), (3, 0), (2, 4)])
@every_shape
def test_cached_steps_give_what_recomputed_steps_give(
    shape: str, n_paths: int, n_padding: int, s2_positions: Any
) -> None:
    predictor = networks(shape)[1].double()
    is_padding = torch.arange(7) < torch.tensor([[n_padding], [0]]) if n_padding else None
    context = Context(*tokens(shape, 2, 7), stamps(2, 7), is_padding)
    sampling = Sampling(n_paths=n_paths, s2_positions=s2_positions)
    future, uniforms = stamps(2, 6, seed=1), torch.rand(2, 6, n_paths, 2, dtype=torch.float64)
    with torch.no_grad():
        ways = (
            CachedSteps(predictor, context, sampling, 6),
            RecomputedSteps(predictor, context, sampling, 13),
        )
        drawn = [_Recorded(steps) for steps in ways]
        paths = [draw_paths(steps, future, uniforms, sampling) for steps in drawn]
    for cached, recomputed in zip(*paths, strict=True):
        assert torch.equal(cached, recomputed)
    for cached, recomputed in zip(drawn[0].logits, drawn[1].logits, strict=True):
        assert torch.allclose(cached, recomputed, atol=1e-10)
    if n_paths > 1:
        assert not torch.equal(paths[0][0][:, 0], paths[0][0][:, 1])


@every_shape
def test_paths_beyond_the_window_read_its_newest_tokens_only(shape: str) -> None:
    _, predictor = networks(shape)
    s1, s2 = tokens(shape, 1, 9)
    context = Context(s1, s2, stamps(1, 9), None)
    sampling, future = Sampling(n_paths=2), stamps(1, 4, seed=1)
    uniforms = torch.rand(1, 4, 2, 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        drawn = [
            draw_paths(RecomputedSteps(predictor, given, sampling, 5), future, uniforms, sampling)
            for given in (context, context.last(5))
        ]
        # what has left the window by the last step decides at the first
        whole = RecomputedSteps(predictor, context, sampling, 9).s1_logits()
        last = RecomputedSteps(predictor, context, sampling, 5).s1_logits()
    assert all(torch.equal(*halves) for halves in zip(*drawn, strict=True))
    assert not torch.allclose(whole, last)


def test_positions_of_s2_matter() -> None:
    shape = "even bits, learned times"
    _, predictor = networks(shape)
    context = Context(*tokens(shape, 1, 9), stamps(1, 9), None)
    logits = [
        CachedSteps(predictor, context, Sampling(n_paths=1, s2_positions=way), 1).s2_logits(
            torch.zeros(1, 1, dtype=torch.long)
        )
        for way in ("reference", "trained")
    ]
    assert not torch.allclose(*logits)


@every_shape
def test_trained_positions_are_those_of_training(shape: str) -> None:
    _, predictor = networks(shape)
    (s1, s2), times = tokens(shape, 2, 9), stamps(2, 9)
    context = Context(s1[:, :-1], s2[:, :-1], times[:, :-1], None)
    with torch.no_grad():
        steps = CachedSteps(predictor, context, Sampling(n_paths=1, s2_positions="trained"), 1)
        hidden = predictor.read(*(part[:, :-1] for part in (s1, s2, times)))
        wanted = predictor.s2_logits(hidden, s1[:, 1:])[:, -1]
        assert torch.allclose(steps.s2_logits(s1[:, -1:])[:, 0], wanted, atol=1e-5)
        assert torch.allclose(
            steps.s1_logits()[:, 0], predictor.s1_logits(hidden)[:, -1], atol=1e-5
        )


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"top_p": 1.0}, [0, 1, 2, 3]),
        # by hand: softmax is .087, .644, .032, .237
        ({"top_p": 0.9}, [0, 1, 3]),
        ({"top_p": 0.7}, [1, 3]),
        ({"top_p": 0.6}, [1]),
        ({"top_p": 0.01}, [1]),
        ({"top_p": 0.01, "top_k": 2}, [1, 3]),
        ({"top_k": 1}, [1]),
        ({"top_k": 99}, [0, 1, 2, 3]),
        # twice as cold: .017, .867, .002, .117
        ({"top_p": 0.9, "temperature": 0.5}, [1, 3]),
        ({"top_p": 0.86, "temperature": 0.5}, [1]),
    ],
)
def test_the_likeliest_tokens_stay_in_their_proportions(
    changes: dict[str, float], kept: list[int]
) -> None:
    sampling = replace(Sampling(), **changes)
    found = sampling.probabilities(LOGITS[None])[0]
    assert torch.flatten(found.nonzero()).tolist() == kept
    wanted = (LOGITS[kept] / sampling.temperature).softmax(dim=0)
    assert torch.allclose(found[kept], wanted)


def test_draws_have_the_share_of_their_probability_and_never_none() -> None:
    sampling = Sampling(top_p=0.9)
    uniforms = torch.cat(
        [torch.arange(0, 1, 1e-4, dtype=torch.float64), torch.tensor([1 - 2**-53])]
    )
    drawn = sampling.draw(LOGITS.expand(len(uniforms), -1), uniforms)
    shares = torch.bincount(drawn, minlength=4) / len(uniforms)
    assert shares[2] == 0
    assert torch.allclose(shares, sampling.probabilities(LOGITS), atol=3e-4)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"n_paths": 0}, "n_paths of at least 1"),
        ({"temperature": 0.0}, "temperature above 0"),
        ({"temperature": float("nan")}, "temperature above 0"),
        ({"top_p": 0.0}, r"top_p in \(0, 1\]"),
        ({"top_p": 1.1}, r"top_p in \(0, 1\]"),
        ({"top_k": 0}, "top_k of at least 1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(changes: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ForecastError, match=wanted):
        Sampling(**changes)


def test_other_positions_of_s2_are_refused() -> None:
    sampling = Sampling()
    object.__setattr__(sampling, "s2_positions", "none")  # tests check types, users need not
    with pytest.raises(ForecastError, match="s2_positions in"):
        sampling.__post_init__()


class _Recorded:
    """Keeps all logits."""

    def __init__(self, steps: CachedSteps | RecomputedSteps) -> None:
        self._steps, self.advance = steps, steps.advance
        self.logits: list[torch.Tensor] = []

    def s1_logits(self) -> torch.Tensor:
        self.logits.append(self._steps.s1_logits())
        return self.logits[-1]

    def s2_logits(self, s1: torch.Tensor) -> torch.Tensor:
        self.logits.append(self._steps.s2_logits(s1))
        return self.logits[-1]
