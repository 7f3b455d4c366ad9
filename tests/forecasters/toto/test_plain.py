"""Toto 1.0 of sizes that nobody publishes, beside the formulas in plain loops."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hrl_sarp.forecasters.toto import SeriesBatch, load_toto

SIZES: dict[str, dict[str, Any]] = {
    "three heads, space first": {
        "patch_size": 3, "embed_dim": 12, "num_layers": 5, "num_heads": 3, "mlp_hidden_dim": 7,
        "spacewise_every_n_layers": 2, "spacewise_first": True, "k_components": 5,
    },
    "one head, space last": {
        "patch_size": 5, "embed_dim": 6, "num_layers": 3, "num_heads": 1, "mlp_hidden_dim": 11,
        "spacewise_every_n_layers": 3, "spacewise_first": False, "k_components": 1,
    },
    "five heads, time alone": {
        "patch_size": 2, "embed_dim": 20, "num_layers": 2, "num_heads": 5, "mlp_hidden_dim": 3,
        "spacewise_every_n_layers": -1, "spacewise_first": False, "k_components": 2,
    },
}  # fmt: skip
Weights = dict[str, np.ndarray]


def weights_of(size: dict[str, Any], *, is_fused: bool) -> dict[str, torch.Tensor]:
    """Draw weights under the names that the makers use."""
    generator = torch.Generator().manual_seed(len(str(size)))
    width, hidden, patch = size["embed_dim"], size["mlp_hidden_dim"], size["patch_size"]
    shapes: dict[str, tuple[int, ...]] = {"patch_embed.projection": (width, patch)}
    up, down = ("0.w12", "0.w3") if is_fused else ("0", "2")
    for number in range(size["num_layers"]):
        layer = f"transformer.layers.{number}"
        shapes |= {f"{layer}.attention.wQKV": (3 * width, width)}
        shapes |= {f"{layer}.attention.wO": (width, width)}
        shapes |= {f"{layer}.mlp.{up}": (2 * hidden, width), f"{layer}.mlp.{down}": (width, hidden)}
    shapes["unembed"] = width * patch, width
    parts = ("df", "loc_proj", "scale_proj", "mixture_weights")
    shapes |= {f"output_distribution.{part}": (size["k_components"], width) for part in parts}
    state = {}
    for name, shape in shapes.items():
        state[f"model.{name}.weight"] = torch.randn(shape, generator=generator) / shape[1] ** 0.5
        state[f"model.{name}.bias"] = torch.randn(shape[0], generator=generator)
    for number in range(size["num_layers"]):
        for norm in ("norm1", "norm2"):
            name = f"model.transformer.layers.{number}.{norm}.scale"
            state[name] = 1 + torch.rand(width, generator=generator)
    return state


def linear(weights: Weights, name: str, x: np.ndarray) -> np.ndarray:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def softplus(x: np.ndarray) -> np.ndarray:
    return np.maximum(np.logaddexp(0.0, x), np.finfo(np.float32).eps)


def rms(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-8) * scale


def turned(head: np.ndarray, position: int, sign: int) -> np.ndarray:
    """Rotate neighbouring channels; the factors of xPos stand twice, one after the other."""
    width, found = len(head), np.empty_like(head)
    for pair in range(width // 2):
        angle = position * 10_000.0 ** (-2 * pair / width)
        a, b = head[2 * pair], head[2 * pair + 1]
        found[2 * pair] = a * math.cos(angle) - b * math.sin(angle)
        found[2 * pair + 1] = b * math.cos(angle) + a * math.sin(angle)
    zeta = (np.arange(0, width, 2) + 0.4 * width) / (1.4 * width)
    return found * np.concatenate([zeta, zeta]) ** (sign * position / 512)


def attended(
    weights: Weights, layer: str, x: np.ndarray, heads: int, groups: np.ndarray | None
) -> np.ndarray:
    """Attend over time, or over series where groups are given."""
    n_series, n_patches, width = x.shape
    projected = linear(weights, f"{layer}.wQKV", x)
    channels = width // heads
    mixed = np.zeros_like(x)
    for series in range(n_series):
        for patch in range(n_patches):
            for head in range(heads):
                # the head varies fastest, then the channel, then query, key and value
                at = [
                    [part * width + c * heads + head for c in range(channels)] for part in range(3)
                ]
                query = projected[series, patch, at[0]]
                if groups is None:
                    rows = [(series, earlier) for earlier in range(patch + 1)]
                    query = turned(query, patch, 1)
                else:
                    rows = [(v, patch) for v in range(n_series) if groups[v] == groups[series]]
                keys = [projected[v, s, at[1]] for v, s in rows]
                if groups is None:
                    keys = [turned(key, s, -1) for key, (_, s) in zip(keys, rows, strict=True)]
                scores = np.array([query @ key for key in keys]) / math.sqrt(channels)
                shares = np.exp(scores - scores.max())
                shares /= shares.sum()
                values = np.array([projected[v, s, at[2]] for v, s in rows])
                mixed[series, patch, head * channels : (head + 1) * channels] = shares @ values
    return linear(weights, f"{layer}.wO", mixed)


def plain_forward(
    weights: Weights, size: dict[str, Any], values: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Return loc and scale of each patch, and df, loc, scale and weights of each step."""
    patch, every = size["patch_size"], size["spacewise_every_n_layers"]
    n_series, n_steps = values.shape
    ends = range(patch, n_steps + 1, patch)
    loc = np.array([[row[:end].mean() for end in ends] for row in values])
    deviations = [[math.sqrt(row[:end].var(ddof=1) + 0.1) for end in ends] for row in values]
    scale = np.array(deviations)
    scaled = (values.reshape(n_series, -1, patch) - loc[..., None]) / scale[..., None]
    x = linear(weights, "patch_embed.projection", scaled)
    for number in range(size["num_layers"]):
        layer = f"transformer.layers.{number}"
        is_space = every > 0 and number % every == (0 if size["spacewise_first"] else every - 1)
        normed = rms(x, weights[f"{layer}.norm1.scale"])
        asked = groups if is_space else None
        x = x + attended(weights, f"{layer}.attention", normed, size["num_heads"], asked)
        normed = rms(x, weights[f"{layer}.norm2.scale"])
        opened = linear(weights, f"{layer}.mlp.0", normed)
        gate, passed = np.split(opened, 2, axis=-1)
        x = x + linear(weights, f"{layer}.mlp.2", gate / (1 + np.exp(-gate)) * passed)
    steps = linear(weights, "unembed", x).reshape(n_series, n_steps, -1)
    head = [linear(weights, f"output_distribution.{part}", steps) for part in
            ("df", "loc_proj", "scale_proj", "mixture_weights")]  # fmt: skip
    shares = np.exp(head[3] - head[3].max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    return loc, scale, [2 + softplus(head[0]), head[1], softplus(head[2]), shares]


@pytest.mark.parametrize("is_fused", [False, True], ids=["plain names", "fused names"])
@pytest.mark.parametrize("case", SIZES)
def test_any_sizes_are_the_formulas(tmp_path: Path, case: str, *, is_fused: bool) -> None:
    size = SIZES[case]
    save_file(weights_of(size, is_fused=is_fused), tmp_path / "model.safetensors")
    config = {key: value for key, value in size.items() if key != "k_components"} | {
        "stride": size["patch_size"],
        "dropout": 0.1,
        "scaler_cls": "<class 'model.scaler.CausalPatchStdMeanScaler'>",
        "output_distribution_classes": ["<class 'model.distribution.MixtureOfStudentTsOutput'>"],
        "output_distribution_kwargs": {"k_components": size["k_components"]},
        "use_memory_efficient_attention": is_fused,
        "stabilize_with_global": True,
        "scale_factor_exponent": 10.0,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    values = 50 + np.random.default_rng(3).normal(size=(3, 4 * size["patch_size"])).cumsum(axis=1)
    groups = np.array([4, 0, 4])
    model = load_toto(tmp_path).double()
    shape = torch.ones(1, 3, values.shape[1], dtype=torch.bool)
    batch = SeriesBatch(torch.from_numpy(values)[None], shape, torch.from_numpy(groups)[None])
    with torch.no_grad():
        mixture, scaled = model(batch)
    names = {
        name.removeprefix("model.")
        .replace("0.w12", "0")
        .replace("0.w3", "2"): part.double().numpy()
        for name, part in weights_of(size, is_fused=is_fused).items()
    }
    loc, scale, parts = plain_forward(names, size, values, groups)
    assert scaled.loc[0].numpy() == pytest.approx(loc, rel=1e-9)
    assert scaled.scale[0].numpy() == pytest.approx(scale, rel=1e-9)
    for ours, plain in zip(mixture.parts, parts, strict=True):
        assert ours[0].numpy() == pytest.approx(plain, rel=1e-8, abs=1e-9)
