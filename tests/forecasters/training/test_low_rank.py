"""Low-rank parts begin at nothing, train alone, and leave the published names behind."""

from pathlib import Path

import pytest
import torch
from torch import nn

from hrl_sarp.forecasters.training.low_rank import (
    LowRankLinear,
    add_low_rank,
    count_trained,
    freeze_all_but,
    merge_low_rank,
)
from hrl_sarp.forecasters.training.models import TRAINABLE, make_task
from tests.forecasters.training.test_run import request


def _net() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 10), nn.SiLU(), nn.Linear(10, 3, bias=False))


@pytest.mark.parametrize("rank", [1, 2, 64])
def test_a_low_rank_training_changes_outputs_by_few_weights_and_merges(rank: int) -> None:
    net, inputs = _net(), torch.randn(5, 6)
    before, names = net(inputs), list(net.state_dict())
    trained = add_low_rank(net, rank, 2.0, seed=1)
    ranks = min(rank, 6), min(rank, 3)
    assert trained == ranks[0] * (6 + 10) + ranks[1] * (10 + 3)
    assert torch.equal(net(inputs), before)
    frozen = {n: w.clone() for n, w in net.named_parameters() if not w.requires_grad}
    optimizer = torch.optim.SGD([w for w in net.parameters() if w.requires_grad], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        net(inputs).square().sum().backward()
        optimizer.step()
    own = dict(net.named_parameters())
    assert all(torch.equal(own[name], weight) for name, weight in frozen.items())
    after = net(inputs)
    assert not torch.allclose(after, before)
    merge_low_rank(net)
    assert sorted(net.state_dict()) == sorted(names)
    assert torch.allclose(net(inputs), after, atol=1e-6)
    merge_low_rank(net)  # nothing is left to merge


@pytest.mark.parametrize("model", ["toto", "kronos-tokenizer", "kronos"])
def test_every_low_rank_part_of_a_model_learns_and_is_merged_to_the_same_loss(model: str) -> None:
    asked = request(model, Path("unused"))
    windows, device = asked.windows(), torch.device("cpu")
    tokenizer = None
    if model == "kronos":
        sizes = asked.settings.models["kronos-tokenizer"].sizes
        tokenizer = TRAINABLE["kronos-tokenizer"].make(sizes, None)
    module = TRAINABLE[model].make(asked.of_model.sizes, tokenizer)
    task = make_task(model, module, tokenizer, windows, device, asked.of_model)
    names = set(module.state_dict())
    add_low_rank(module, 2, 2.0, seed=1)
    parts = {n: part for n, part in module.named_modules() if isinstance(part, LowRankLinear)}
    with torch.no_grad():
        for part in parts.values():
            part.up.normal_()

    def loss() -> torch.Tensor:
        torch.manual_seed(2)  # of dropout
        return task.loss(task.train_rows[:8], torch.Generator().manual_seed(3))[0]

    before = loss()
    before.backward()
    for name, part in parts.items():
        for weights in (part.up, part.down):
            assert weights.grad is not None, name
            assert bool((weights.grad != 0).any()), name
        assert part.weight.grad is None
    merge_low_rank(module)
    assert set(module.state_dict()) == names
    assert loss().item() == pytest.approx(before.item(), rel=1e-4)


def test_freezing_trains_the_named_layers_alone() -> None:
    net = _net()
    assert freeze_all_but(net, ("2.",)) == 30
    assert [name for name, weight in net.named_parameters() if weight.requires_grad] == ["2.weight"]
    assert count_trained(net) == 30
