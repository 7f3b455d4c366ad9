"""Every array of every set, as the published implementation computed it."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from hrl_sarp.forecasters.kronos import KronosForecaster, Sampling
from hrl_sarp.forecasters.kronos.bars import Scale, bars_of, scale_of, stamps_of
from hrl_sarp.forecasters.kronos.sampling import (
    CachedSteps,
    Context,
    RecomputedSteps,
    draw_paths,
)
from tests.forecasters.published import every_kronos_set, kronos_set

GREEDY = Sampling(n_paths=2, top_k=1)
ARRAYS: dict[str, set[str]] = {
    "normalisation": {"raw", "stamp", "context_mean", "context_std", "x"},
    "tokens": {"sphere", "codes", "s1", "s2", "composite", "decoded"},
    "tokenizer loss": {
        *{"reconstruction_s1_only", "reconstruction", "persample_entropy", "codebook_entropy"},
        *{"commit", "bsq_loss", "tokenizer_loss", "grad_quant_embed"},
    },
    "predictor": {
        *{"hidden", "s1_logits", "s2_logits_causal", "s2_logits_reference_step"},
        *{"no_stamp_s1_logits", "ce_s1", "ce_s2", "predictor_loss", "grad_emb_s1"},
    },
    "probabilities": {"filtered_top_p", "filtered_top_k"},
    "greedy": {
        *{"greedy_s1", "greedy_s2", "greedy_forecast", "greedy_margin"},
        *{"greedy_s1_rolling", "greedy_s2_rolling", "greedy_forecast_rolling"},
        *{"greedy_margin_rolling", "predict_frame", "predict_frame_prices_only"},
    },
    "refuted": {"s2_logits_reference_eval"},
}
"""Which test compares an array."""


@every_kronos_set
def test_no_array_is_left_out(name: str) -> None:
    compared = set().union(*ARRAYS.values())
    assert kronos_set(name).published.arrays.keys() == compared
    assert len(compared) == sum(map(len, ARRAYS.values()))


@every_kronos_set
def test_sizes_keys_and_shapes_are_those_of_the_files(name: str) -> None:
    given = kronos_set(name)
    about = given.about
    for network, config in (
        (given.tokenizer, "tokenizer_config"),
        (given.predictor, "model_config"),
    ):
        assert network.size.model_dump() == about[config]
        shapes = {key: list(tensor.shape) for key, tensor in network.state_dict().items()}
        assert shapes == about[config.replace("config", "keys")]
    counts = {
        part: sum(weights.numel() for weights in network.parameters())
        for part, network in (("tokenizer", given.tokenizer), ("model", given.predictor))
    }
    assert counts == about["parameters"]


@every_kronos_set
def test_bars_and_times_are_normalised_alike(name: str) -> None:
    given = kronos_set(name)
    raw = given.array("raw").astype(np.float32)
    scales = [scale_of(bars[: given.context]) for bars in raw]
    given.must_equal("context_mean", np.stack([scale.mean for scale in scales])[:, None])
    given.must_equal("context_std", np.stack([scale.deviation for scale in scales])[:, None])
    pairs = zip(scales, raw, strict=True)
    given.must_equal("x", np.stack([scale.normalise(bars) for scale, bars in pairs]))
    for i, history in enumerate(given.histories()):
        times = np.concatenate([history.timestamps, history.future])
        assert np.array_equal(stamps_of(times), given.array("stamp")[i, : len(times)])
        assert np.array_equal(bars_of(history), raw[i, : given.context])


@every_kronos_set
def test_tokens_are_equal(name: str) -> None:
    given = kronos_set(name)
    tokenizer, bars = given.tokenizer, given.tensor("x")
    points = tokenizer.points(bars)
    given.must_equal("sphere", points)
    given.must_equal("codes", tokenizer.tokenizer["bsq"](points))
    s1, s2 = tokenizer.encode(bars)
    given.must_equal("s1", s1)
    given.must_equal("s2", s2)
    given.must_equal("composite", s1 + (s2 << tokenizer.size.s1_bits))
    given.must_equal("decoded", tokenizer.decode(s1, s2))


@every_kronos_set
def test_the_loss_of_the_tokenizer_and_its_gradients_are_equal(name: str) -> None:
    given = kronos_set(name)
    tokenizer, bars = given.tokenizer, given.tensor("x")
    tokenizer.zero_grad()
    loss = tokenizer.loss(bars)
    loss.total.backward()
    for array, value in {
        "persample_entropy": loss.sample_entropy,
        "codebook_entropy": loss.codebook_entropy,
        "commit": loss.commitment,
        "bsq_loss": loss.quantisation,
        "tokenizer_loss": loss.total,
        "grad_quant_embed": tokenizer.quant_embed.weight.grad,
    }.items():
        given.must_equal(array, value)
    _gradients_must_equal(tokenizer, given.about["tokenizer_gradient_norms"])
    # both errors are those of the two reconstructions
    for array, error in (
        ("reconstruction_s1_only", loss.coarse_error),
        ("reconstruction", loss.full_error),
    ):
        wanted = functional.mse_loss(given.tensor(array), bars)
        assert error.item() == pytest.approx(wanted.item(), rel=1e-5)
    codes = given.tensor("codes")
    coarse = tokenizer.post_quant_embed_pre(codes[..., : tokenizer.size.s1_bits])
    given.must_equal("reconstruction_s1_only", tokenizer.head(tokenizer.decoder(coarse)))
    full = tokenizer.post_quant_embed(codes)
    given.must_equal("reconstruction", tokenizer.head(tokenizer.decoder(full)))


@every_kronos_set
def test_logits_losses_and_gradients_of_the_predictor_are_equal(name: str) -> None:
    given = kronos_set(name)
    predictor = given.predictor
    s1, s2, stamps = given.tensor("s1"), given.tensor("s2"), given.tensor("stamp")
    predictor.zero_grad()
    hidden = predictor.read(s1[:, :-1], s2[:, :-1], stamps[:, :-1])
    given.must_equal("hidden", hidden)
    given.must_equal("s1_logits", predictor.s1_logits(hidden))
    given.must_equal("s2_logits_causal", predictor.s2_logits(hidden, s1[:, 1:]))
    memory = predictor.dep_layer.begin(hidden, None, 1, 0, is_turned=False)
    step = predictor.next_s2_logits(hidden[:, None, -1:], s1[:, None, -1:], memory)
    given.must_equal("s2_logits_reference_step", step[:, 0, 0])
    without = predictor.read(s1[:, :-1], s2[:, :-1], None)
    given.must_equal("no_stamp_s1_logits", predictor.s1_logits(without))
    loss = predictor.loss(s1, s2, stamps)
    loss.total.backward()
    given.must_equal("ce_s1", loss.s1)
    given.must_equal("ce_s2", loss.s2)
    given.must_equal("predictor_loss", loss.total)
    given.must_equal("grad_emb_s1", predictor.embedding.emb_s1.weight.grad)
    _gradients_must_equal(predictor, given.about["model_gradient_norms"])


@every_kronos_set
def test_probabilities_are_filtered_alike(name: str) -> None:
    given = kronos_set(name)
    logits = given.tensor("s1_logits")[:, -1]
    nucleus = Sampling(temperature=0.8, top_p=0.9)
    given.must_equal("filtered_top_p", nucleus.probabilities(logits))
    three = Sampling(temperature=0.8, top_p=0.9, top_k=3)
    given.must_equal("filtered_top_k", three.probabilities(logits))


@pytest.mark.parametrize("window", ["", "_rolling"])
@every_kronos_set
def test_greedy_paths_are_equal_cached_and_recomputed(name: str, window: str) -> None:
    given = kronos_set(name)
    shapes = given.about["shapes"]
    max_context = shapes["rolling_max_context" if window else "max_context"]
    end = given.context + given.horizon
    bars, stamps = given.tensor("x")[:, : given.context], given.tensor("stamp")
    with torch.no_grad():
        context = Context(*given.tokenizer.encode(bars), stamps[:, : given.context], None)
        networks = given.predictor, context, GREEDY
        ways = [RecomputedSteps(*networks, max_context)]
        if end <= max_context:
            ways.append(CachedSteps(*networks, given.horizon))
        for steps in ways:
            watched = _Watched(steps)
            uniforms = torch.rand(len(bars), given.horizon, GREEDY.n_paths, 2)
            s1, s2 = draw_paths(watched, stamps[:, given.context : end], uniforms, GREEDY)
            before = context.last(max_context - given.horizon)
            drawn = given.tokenizer.decode_paths((before.s1, before.s2), (s1, s2))
            for path in range(GREEDY.n_paths):
                given.must_equal(f"greedy_s1{window}", s1[:, path])
                given.must_equal(f"greedy_s2{window}", s2[:, path])
                given.must_equal(f"greedy_forecast{window}", drawn[:, path])
            given.must_equal(f"greedy_margin{window}", np.float32(watched.margin))


@every_kronos_set
def test_whole_forecasts_are_equal_in_prices(name: str) -> None:
    given = kronos_set(name)
    max_context = given.about["shapes"]["max_context"]
    for is_cached in (True, False):
        forecaster = KronosForecaster(
            *(given.tokenizer, given.predictor, GREEDY),
            max_context=max_context,
            context=given.context,
            is_cached=is_cached,
        )
        for array, n_columns in (("predict_frame", 6), ("predict_frame_prices_only", 4)):
            drawn = forecaster.draw_bars(given.histories(n_columns), seed=1)
            given.must_equal(array, drawn[0])
            given.must_equal(array, drawn[1])


@every_kronos_set
def test_a_context_longer_than_the_window_is_forecast_as_published(name: str) -> None:
    given = kronos_set(name)
    rolling = given.about["shapes"]["rolling_max_context"]
    forecaster = KronosForecaster(
        given.tokenizer, given.predictor, GREEDY, max_context=rolling, context=given.context
    )
    drawn = forecaster.draw_bars(given.histories(), seed=1)[0]
    means, deviations = given.array("context_mean"), given.array("context_std")
    for i, bars in enumerate(given.array("greedy_forecast_rolling")):
        wanted = Scale(means[i, 0], deviations[i, 0]).restore(bars)
        errors = np.abs(drawn[i] - wanted).max(axis=0) / np.abs(wanted).max(axis=0)
        assert errors.max() < 1e-4  # of each column: prices and volumes differ by magnitudes


@every_kronos_set
def test_the_s2_of_a_row_sees_no_later_row_in_evaluation_either(name: str) -> None:
    given = kronos_set(name)
    wanted, refuted = given.array("s2_logits_causal"), given.array("s2_logits_reference_eval")
    predictor, s1 = given.predictor, given.tensor("s1")
    hidden = given.tensor("hidden")
    try:
        for is_training in (True, False):
            predictor.train(is_training)
            logits = predictor.s2_logits(hidden, s1[:, 1:]).detach().numpy()
            assert np.abs(logits - wanted).max() < 1e-4 * np.abs(wanted).max()
            assert np.abs(logits - refuted).max() > 0.1 * np.abs(wanted).max()
    finally:
        predictor.eval()


class _Watched:
    """Keeps the smallest gap between the best and the second logit of each half."""

    def __init__(self, steps: CachedSteps | RecomputedSteps) -> None:
        self._steps, self.margin, self.advance = steps, np.inf, steps.advance

    def s1_logits(self) -> torch.Tensor:
        return self._seen(self._steps.s1_logits())

    def s2_logits(self, s1: torch.Tensor) -> torch.Tensor:
        return self._seen(self._steps.s2_logits(s1))

    def _seen(self, logits: torch.Tensor) -> torch.Tensor:
        best = logits.topk(2, dim=-1).values
        self.margin = min(self.margin, float((best[..., 0] - best[..., 1]).min()))
        return logits


def _gradients_must_equal(network: torch.nn.Module, norms: dict[str, float]) -> None:
    parameters = dict(network.named_parameters())
    assert parameters.keys() == norms.keys()
    largest = max(norms.values())
    for name, norm in norms.items():
        gradient = parameters[name].grad
        found = 0.0 if gradient is None else float(gradient.norm())
        assert found == pytest.approx(norm, rel=1e-4, abs=1e-5 * largest), name
