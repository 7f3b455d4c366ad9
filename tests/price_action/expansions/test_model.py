"""The heads on Jade: shapes, ranges, and that everything can be learned at once."""

import math

import pytest
import torch

from hrl_sarp.config.encoder_schema import JadeConfig
from hrl_sarp.encoders.networks.jade import JadeEncoder
from hrl_sarp.price_action.expansions.model import TASKS, JadeMultiTask, MultiTaskOutput

SMALL = JadeConfig(hidden=8, layers=1, dropout=0.0)
WINDOWS, BARS, FEATURES = 3, 12, 5


def model(tasks: tuple[str, ...] = TASKS) -> JadeMultiTask:
    torch.manual_seed(0)
    return JadeMultiTask(FEATURES, SMALL, tasks, dropout=0.3)


@pytest.fixture
def bars() -> torch.Tensor:
    return torch.randn(WINDOWS, BARS, FEATURES, generator=torch.Generator().manual_seed(1))


def test_every_head_speaks_of_every_window(bars: torch.Tensor) -> None:
    output = model()(bars)
    shapes = [tuple(part.shape) for part in output if part is not None]
    assert shapes == [(WINDOWS, 2), (WINDOWS, 2), (WINDOWS, BARS), (WINDOWS, BARS)]
    assert bool(((output.pointers >= 0) & (output.pointers <= 1)).all())


def test_tasks_that_are_not_taught_have_no_head(bars: torch.Tensor) -> None:
    stones = model(("type", "pointers", "span"))
    assert stones(bars).countdown is None
    assert stones.tasks == ("type", "pointers", "span")
    assert "countdown_head" not in stones.heads
    assert list(stones.log_sigmas()) == ["type", "pointers", "span"]


def test_parameters_are_those_of_encoder_heads_and_sigmas() -> None:
    encoder = sum(weights.numel() for weights in JadeEncoder(FEATURES, SMALL).parameters())
    # heads on 16 columns: type 2 x 17, place, length, span and countdown 17 each; 4 sigmas
    expected = encoder + 2 * 17 + 4 * 17 + 4
    assert sum(weights.numel() for weights in model().parameters()) == expected


def test_center_is_the_mean_place_under_the_weights_of_the_bars(bars: torch.Tensor) -> None:
    found = model().eval()
    with torch.no_grad():
        for weights in found.heads["place_head"].parameters():
            weights.zero_()
        # equal weights: the middle
        torch.testing.assert_close(found(bars).pointers[:, 0], torch.full((WINDOWS,), 0.5))
        per_bar = torch.zeros(1, BARS, 16)
        per_bar[0, 7] = 1.0
        found.heads["place_head"].weight.fill_(3.0)  # bar 7 alone gets 48, the others 0
        torch.testing.assert_close(found.decode(per_bar).pointers[0, 0], torch.tensor(7 / 11))
        found.heads["length_head"].weight.fill_(0.0)
        found.heads["length_head"].bias.fill_(math.log(3.0))
        torch.testing.assert_close(found.decode(per_bar).pointers[0, 1], torch.tensor(0.75))


def test_heads_start_at_a_constant_answer(bars: torch.Tensor) -> None:
    found = model().eval()
    with torch.no_grad():
        for head in found.heads.values():
            head.weight.zero_()
    constant = MultiTaskOutput(
        torch.tensor([[-0.2, -1.7]]).expand(WINDOWS, 2),
        torch.tensor([[0.6, 0.08]]).expand(WINDOWS, 2),
        torch.full((WINDOWS, BARS), -0.4),
        torch.full((WINDOWS, BARS), 0.3),
    )
    found.start_at(constant)
    said = found(bars)
    # but for the center, which starts in the middle
    torch.testing.assert_close(said.pointers[:, 0], torch.full((WINDOWS,), 0.5))
    torch.testing.assert_close(said.pointers[:, 1], constant.pointers[:, 1])
    for name in ("type_logits", "span_logits", "countdown"):
        torch.testing.assert_close(getattr(said, name), getattr(constant, name), msg=name)
