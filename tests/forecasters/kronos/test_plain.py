"""Kronos of sizes that nobody publishes, beside the formulas in plain loops."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hrl_sarp.forecasters.kronos import load_predictor, load_tokenizer

SIZES: dict[str, dict[str, Any]] = {
    "coarse bits rule": {"bits": (5, 2), "d": 24, "heads": 3, "ff": 7, "layers": 2, "group": 3},
    "fine bits rule": {"bits": (1, 6), "d": 40, "heads": 5, "ff": 9, "layers": 1, "group": 7},
    "one head": {"bits": (3, 3), "d": 8, "heads": 1, "ff": 33, "layers": 3, "group": 1},
}
TIMES = {"minute": 60, "hour": 24, "weekday": 7, "day": 32, "month": 13}
Weights = dict[str, np.ndarray]


def drawn(shapes: dict[str, tuple[int, ...]], bare: tuple[str, ...] = ()) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(sum(map(len, shapes)))
    state = {}
    for name, shape in shapes.items():
        state[f"{name}.weight"] = torch.randn(shape, generator=generator) / shape[-1] ** 0.5
        if len(shape) == 1:
            state[f"{name}.weight"] = 1 + torch.rand(shape, generator=generator)
        elif not any(part in name for part in ("ffn", "emb", *bare)):
            state[f"{name}.bias"] = torch.randn(shape[0], generator=generator)
    return state


def block_shapes(name: str, size: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    width = size["d"]
    attention = {f"{name}.self_attn.{part}_proj": (width, width) for part in ("q", "k", "v", "out")}
    gates = {f"{name}.ffn.w1": (size["ff"], width), f"{name}.ffn.w3": (size["ff"], width)}
    norms = {f"{name}.norm1": (width,), f"{name}.norm2": (width,)}
    return {**norms, **attention, **gates, f"{name}.ffn.w2": (width, size["ff"])}


def frequencies(width: int) -> torch.Tensor:
    return 1.0 / 10_000.0 ** (torch.arange(0, width, 2).float() / width)


def tokenizer_weights(size: dict[str, Any]) -> dict[str, torch.Tensor]:
    width, (s1, s2), head = size["d"], size["bits"], size["d"] // size["heads"]
    shapes: dict[str, tuple[int, ...]] = {"head": (6, width)}
    for number in range(size["layers"]):
        for stack in ("encoder", "decoder"):
            shapes |= block_shapes(f"{stack}.{number}", size)
    state = drawn(shapes)
    for name, shape in {
        "embed": (width, 6),
        "quant_embed": (s1 + s2, width),
        "post_quant_embed_pre": (width, s1),
        "post_quant_embed": (width, s1 + s2),
    }.items():
        generator = torch.Generator().manual_seed(len(name))
        state[f"{name}.weight"] = torch.randn(shape, generator=generator)
        state[f"{name}.bias"] = torch.randn(shape[0], generator=generator)
    for number in range(size["layers"]):
        for stack in ("encoder", "decoder"):
            state[f"{stack}.{number}.self_attn.rotary.inv_freq"] = frequencies(head)
    state["tokenizer.bsq.basis"] = 2 ** torch.arange(s1 + s2 - 1, -1, -1)
    state["tokenizer.bsq.group_basis"] = 2 ** torch.arange(size["group"] - 1, -1, -1)
    return state


def predictor_weights(size: dict[str, Any]) -> dict[str, torch.Tensor]:
    width, (s1, s2) = size["d"], size["bits"]
    shapes: dict[str, tuple[int, ...]] = {"norm": (width,), "dep_layer.norm": (width,)}
    for number in range(size["layers"]):
        shapes |= block_shapes(f"transformer.{number}", size)
    parts = ("q", "k", "v", "out")
    shapes |= {f"dep_layer.cross_attn.{part}_proj": (width, width) for part in parts}
    shapes |= {"head.proj_s1": (2**s1, width), "head.proj_s2": (2**s2, width)}
    state = drawn(shapes)
    tables = {f"time_emb.{part}_embed": (rows, width) for part, rows in TIMES.items()}
    tables |= {"embedding.emb_s1": (2**s1, width), "embedding.emb_s2": (2**s2, width)}
    state |= drawn(tables)
    generator = torch.Generator().manual_seed(1)
    name, shape = "embedding.fusion_proj", (width, 2 * width)
    state[f"{name}.weight"] = torch.randn(shape, generator=generator) / width
    state[f"{name}.bias"] = torch.randn(width, generator=generator)
    for number in range(size["layers"]):
        name = f"transformer.{number}.self_attn.rotary.inv_freq"
        state[name] = frequencies(width // size["heads"])
    state["dep_layer.cross_attn.rotary.inv_freq"] = frequencies(width // 4)
    return state


def linear(weights: Weights, name: str, x: np.ndarray) -> np.ndarray:
    return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0.0)


def rms(weights: Weights, name: str, x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5) * weights[f"{name}.weight"]


def turned(head: np.ndarray, position: int, waves: np.ndarray) -> np.ndarray:
    """Turn the first half of the channels against the second."""
    half, angle = len(head) // 2, position * waves
    left, right = head[:half], head[half:]
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.concatenate([left * cosine - right * sine, right * cosine + left * sine])


def attended(
    weights: Weights, name: str, query: np.ndarray, source: np.ndarray, heads: int
) -> np.ndarray:
    """Let each row attend to the source up to the same row."""
    waves = weights[f"{name}.rotary.inv_freq"]
    asked = linear(weights, f"{name}.q_proj", query)
    keys, values = (linear(weights, f"{name}.{part}_proj", source) for part in ("k", "v"))
    width, mixed = query.shape[1] // heads, np.zeros_like(query)
    for row in range(len(query)):
        for head in range(heads):
            own = slice(head * width, (head + 1) * width)
            looked = turned(asked[row, own], row, waves)
            scores = np.array([looked @ turned(keys[t, own], t, waves) for t in range(row + 1)])
            shares = np.exp((scores - scores.max()) / math.sqrt(width))
            mixed[row, own] = shares / shares.sum() @ values[: row + 1, own]
    return linear(weights, f"{name}.out_proj", mixed)


def block(weights: Weights, name: str, x: np.ndarray, heads: int) -> np.ndarray:
    normed = rms(weights, f"{name}.norm1", x)
    x = x + attended(weights, f"{name}.self_attn", normed, normed, heads)
    normed = rms(weights, f"{name}.norm2", x)
    gate = linear(weights, f"{name}.ffn.w1", normed)
    passed = gate / (1 + np.exp(-gate)) * linear(weights, f"{name}.ffn.w3", normed)
    return x + linear(weights, f"{name}.ffn.w2", passed)


def stack(weights: Weights, name: str, x: np.ndarray, size: dict[str, Any]) -> np.ndarray:
    for number in range(size["layers"]):
        x = block(weights, f"{name}.{number}", x, size["heads"])
    return x


def plain(state: dict[str, torch.Tensor]) -> Weights:
    return {name: part.double().numpy() for name, part in state.items()}


def saved(folder: Path, state: dict[str, torch.Tensor], config: dict[str, Any] | None) -> Path:
    save_file(state, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def common(size: dict[str, Any]) -> dict[str, Any]:
    names = ("ffn_dropout_p", "attn_dropout_p", "resid_dropout_p")
    s1_bits, s2_bits = size["bits"]
    shape = {"d_model": size["d"], "n_heads": size["heads"], "ff_dim": size["ff"]}
    return {**shape, "s1_bits": s1_bits, "s2_bits": s2_bits, **dict.fromkeys(names, 0.1)}


has_config = pytest.mark.parametrize("has_config", [True, False], ids=["config", "tensors alone"])


@has_config
@pytest.mark.parametrize("case", SIZES)
def test_tokens_and_bars_of_any_sizes_are_the_formulas(
    tmp_path: Path, case: str, *, has_config: bool
) -> None:
    size = SIZES[case]
    state, (s1_bits, _) = tokenizer_weights(size), size["bits"]
    layers = {"n_enc_layers": size["layers"] + 1, "n_dec_layers": size["layers"] + 1}
    loss = {"beta": 0.05, "gamma0": 1.0, "gamma": 1.1, "zeta": 0.05, "group_size": size["group"]}
    config = {**common(size), **layers, **loss, "d_in": 6}
    tokenizer = load_tokenizer(saved(tmp_path, state, config if has_config else None)).double()
    bars = np.random.default_rng(4).normal(size=(9, 6))
    weights = plain(state)
    points = linear(weights, "quant_embed",
                    stack(weights, "encoder", linear(weights, "embed", bars), size))  # fmt: skip
    bits = points > 0
    s1 = [sum(1 << i for i in range(s1_bits) if row[i]) for row in bits]
    s2 = [sum(1 << i for i, bit in enumerate(row[s1_bits:]) if bit) for row in bits]
    found = tokenizer.encode(torch.from_numpy(bars)[None])
    assert [part[0].tolist() for part in found] == [s1, s2]
    codes = np.where(bits, 1.0, -1.0) / math.sqrt(sum(size["bits"]))
    decoded = stack(weights, "decoder", linear(weights, "post_quant_embed", codes), size)
    with torch.no_grad():
        ours = tokenizer.decode(*found)[0].numpy()
    assert ours == pytest.approx(linear(weights, "head", decoded), rel=1e-6, abs=1e-7)


@has_config
@pytest.mark.parametrize("case", SIZES)
def test_logits_of_any_sizes_are_the_formulas(
    tmp_path: Path, case: str, *, has_config: bool
) -> None:
    size = SIZES[case]
    state, (s1_bits, s2_bits) = predictor_weights(size), size["bits"]
    config = {**common(size), "n_layers": size["layers"], "token_dropout_p": 0.1, "learn_te": True}
    predictor = load_predictor(saved(tmp_path, state, config if has_config else None)).double()
    rng, weights = np.random.default_rng(5), plain(state)
    s1, s2, given = (rng.integers(2**bits, size=8) for bits in (s1_bits, s2_bits, s1_bits))
    stamps = np.stack([rng.integers(rows, size=8) for rows in TIMES.values()], axis=1)
    tables = [weights[f"embedding.emb_{part}.weight"] for part in ("s1", "s2")]
    both = np.concatenate([tables[0][s1], tables[1][s2]], axis=1) * math.sqrt(size["d"])
    x = linear(weights, "embedding.fusion_proj", both)
    for column, part in enumerate(TIMES):
        x = x + weights[f"time_emb.{part}_embed.weight"][stamps[:, column]]
    hidden = rms(weights, "norm", stack(weights, "transformer", x, size))
    # four heads, whatever the other blocks have; the query is the bare row of the table
    crossed = attended(weights, "dep_layer.cross_attn", tables[0][given], hidden, 4)
    rows = [torch.from_numpy(part)[None] for part in (s1, s2, stamps, given)]
    with torch.no_grad():
        read = predictor.read(*rows[:3])
        ours = predictor.s1_logits(read)[0].numpy(), predictor.s2_logits(read, rows[3])[0].numpy()
    assert ours[0] == pytest.approx(linear(weights, "head.proj_s1", hidden), rel=1e-6, abs=1e-6)
    expected = linear(weights, "head.proj_s2", rms(weights, "dep_layer.norm", hidden + crossed))
    assert ours[1] == pytest.approx(expected, rel=1e-6, abs=1e-6)
