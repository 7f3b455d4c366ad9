"""Checks of configuration values against each other. The schema checks single values."""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise

from hrl_sarp.config.encoder_schema import EncodersConfig, WindowedConfig
from hrl_sarp.config.market_schema import MarketProfile, Section, SpansConfig, SpanShares
from hrl_sarp.config.schema import (
    CurriculumConfig,
    MacroAgentConfig,
    MicroNetworkConfig,
    RunConfig,
    TD3Config,
)
from hrl_sarp.errors import ConfigError

EXTRA = ("extra_stock_features", "extra_macro_features")
MIX_TOLERANCE = 1e-9
"""Rounding allowed in shares that must sum to 1."""
EXPONENT_WITHOUT_POINT = re.compile(r"([+-]?\d+)\.?([eE][+-]?\d+)")
NUMBER_OF_PEOPLE = re.compile(r"\s*(?P<digits>[+-]?\d+(?:\.\d+|,\d{1,2})?)\s*(?P<percent>%?)\s*")
"""With a decimal comma or a sign of percent; three digits behind a comma may be thousands."""

RETIRED_KEYS = {
    ("risk", "bear_exposure_cut"): "the cash of the goal sets the exposure, see `objective.kind`",
}
"""Keys that files of earlier versions hold, and what replaced them."""
RENAMED_KEYS = {
    ("training",): "training values stand in `macro_agent.pretrain` and `micro_agent.pretrain`",
    ("training", "pretrain_batch_size"): "it is `macro_agent.pretrain.batch_size`",
    ("encoders", "jade", "hidden_size"): "it is `encoders.jade.hidden`",
    ("encoders", "jade", "num_layers"): "it is `encoders.jade.layers`",
    ("encoders", "transformer", "d_model"): "it is `encoders.transformer.width`",
    ("encoders", "transformer", "num_layers"): "it is `encoders.transformer.layers`",
    ("encoders", "transformer", "window_size"): "it is `encoders.transformer.window_length`",
    ("encoders", "price_action", "num_epochs"): "it is `encoders.price_action.epochs`",
    ("encoders", "price_action", "early_stopping"): "it is `encoders.price_action.patience`",
}
"""Keys that other systems have for a value of ours; a message about one says its name here."""


def find_contradictions(config: RunConfig) -> list[str]:
    """Return one line for each contradiction, with the values."""
    return [
        *_profile_problems(config.market_profile),
        *_span_problems(config.market_profile.spans),
        *_leak_problems(config),
        *_stage_problems(config.curriculum),
        *_agent_problems(config.macro_agent, config.micro_agent.td3),
        *_decode_problems(config.micro_agent.network),
        *_credit_problems(config),
        *_stress_problems(config),
        *_encoder_problems(config.windowed, config.encoders),
    ]


def _credit_problems(config: RunConfig) -> Iterator[str]:
    if config.micro_agent.td3.credit == "stock" and config.objective.kind != "risk":
        yield (
            "micro_agent.td3.credit: stock: the parts of a reward by stock are known under "
            f"objective.kind: risk only, found {config.objective.kind}; expected portfolio"
        )


def _profile_problems(profile: MarketProfile) -> Iterator[str]:
    for name in ("sectors", "stock_features", "macro_features", "required_features", *EXTRA):
        names: list[str] = getattr(profile, name)
        again = sorted({entry for entry in names if names.count(entry) > 1})
        if again:
            yield f"market_profile.{name}: each name may stand once, duplicate: {', '.join(again)}"
    known = {*profile.stock_features, *profile.macro_features}
    strange = [name for name in profile.required_features if name not in known]
    if strange:
        yield (
            f"market_profile.required_features: expected names of stock_features or "
            f"macro_features, found {', '.join(strange)}"
        )
    universe = profile.universe
    if universe.min_bars > universe.lookback_days:
        yield (
            f"market_profile.universe.min_bars: {universe.min_bars} bars never fit into "
            f"lookback_days = {universe.lookback_days}"
        )


def _span_problems(spans: SpansConfig | SpanShares) -> Iterator[str]:
    if isinstance(spans, SpanShares):
        if abs(sum(spans.shares) - 1) > MIX_TOLERANCE:
            yield f"market_profile.spans.shares: must sum to 1, sum to {sum(spans.shares):g}"
        return
    named = [("train", spans.train), ("validation", spans.validation), ("test", spans.test)]
    for name, span in named:
        if span.end <= span.start:
            yield (f"market_profile.spans.{name}: end {span.end} must be after start {span.start}")
    for (earlier_name, earlier), (name, span) in pairwise(named):
        if span.start <= earlier.end:
            yield (
                f"market_profile.spans.{name}: start {span.start} must be after the end of "
                f"{earlier_name}, {earlier.end}"
            )


def _leak_problems(config: RunConfig) -> Iterator[str]:
    # A label of day t runs from the next open, so it reads the rows up to t + horizon + 1.
    horizons = {
        "data.regime.label_horizon_days": config.data.regime.label_horizon_days,
        "data.macro_label_days": config.data.macro_label_days,
        "data.micro_label_days": config.data.micro_label_days,
        "evaluation.ridge_label_days": config.evaluation.ridge_label_days,
    }
    for name, horizon in horizons.items():
        if horizon + 1 > config.data.purge_days:
            yield (
                f"data.purge_days: {config.data.purge_days} sessions let the labels of {name} = "
                f"{horizon} reach into the next span; at least {horizon + 1} are needed"
            )


def _stage_problems(curriculum: CurriculumConfig) -> Iterator[str]:
    for index, stage in enumerate(curriculum.stages):
        total = 1.0 if stage.regime_mix is None else sum(stage.regime_mix)
        if abs(total - 1) > MIX_TOLERANCE:
            yield f"curriculum.stages[{index}].regime_mix: must sum to 1, sums to {total:g}"
    for index, (earlier, stage) in enumerate(pairwise(curriculum.stages), start=1):
        if stage.max_share <= earlier.max_share:
            yield (
                f"curriculum.stages[{index}].max_share: {stage.max_share:g} is not above the stage "
                f"before it, {earlier.max_share:g}"
            )


def _agent_problems(macro: MacroAgentConfig, td3: TD3Config) -> Iterator[str]:
    graph, ppo = macro.graph, macro.ppo
    if graph.layer == "gat":
        yield from _remainder("macro_agent.graph", graph, "heads", "hidden")
    yield from _remainder("macro_agent.ppo", ppo, "envs_per_group", "n_envs")
    rollout = ppo.n_envs * ppo.n_steps
    if rollout % ppo.batch_size:
        yield (
            f"macro_agent.ppo.batch_size: {ppo.batch_size} must divide n_envs x n_steps = {rollout}"
        )
    yield from _remainder("micro_agent.td3", td3, "envs_per_group", "n_envs")
    for problem in _remainder("micro_agent.td3", td3, "batch_per_day", "envs_per_group"):
        yield f"{problem}: a batch takes rows that share their day"
    yield from _remainder("micro_agent.td3", td3, "env_steps_per_update", "n_envs")
    batch = td3.batch_days * td3.batch_per_day
    if batch > td3.buffer_size:
        yield (
            f"micro_agent.td3.buffer_size: {td3.buffer_size} is smaller than one batch, "
            f"batch_days x batch_per_day = {batch}"
        )


def _decode_problems(network: MicroNetworkConfig) -> Iterator[str]:
    if network.decode == "free" and network.trade_speed < 1:
        yield (
            f"micro_agent.network.trade_speed: {network.trade_speed:g} slows the decode "
            "'within_sector' only; set it to 1 beside decode: free"
        )


def _remainder(name: str, section: Section, part: str, whole: str) -> Iterator[str]:
    parts, total = getattr(section, part), getattr(section, whole)
    if total % parts:
        yield f"{name}.{part}: {parts} must divide {whole} = {total}"


def _stress_problems(config: RunConfig) -> Iterator[str]:
    stress, profile = config.stress, config.market_profile
    for index, shock in enumerate(stress.shocks):
        if len(shock.sector_returns) != len(stress.sectors):
            yield (
                f"stress.shocks[{index}].sector_returns: {len(shock.sector_returns)} returns for "
                f"{len(stress.sectors)} sectors"
            )
    for index, window in enumerate(profile.stress.windows):
        if window.end <= window.start:
            yield (
                f"market_profile.stress.windows[{index}]: end {window.end} must be after start "
                f"{window.start}"
            )
    names = [window.name for window in profile.stress.windows] + [s.name for s in stress.shocks]
    again = sorted({name for name in names if names.count(name) > 1})
    if again:
        yield f"stress: each scenario needs a name of its own, duplicate: {', '.join(again)}"
    # the command refuses unmapped sectors, because an experiment may have sectors of its own
    mapped = profile.stress.sectors.items()
    wrong = [f"{sector}: {name}" for sector, name in mapped if name not in stress.sectors]
    if wrong:
        yield (
            f"market_profile.stress.sectors: expected sectors of stress.sectors, found "
            f"{', '.join(wrong)}"
        )


def _encoder_problems(windowed: WindowedConfig, encoders: EncodersConfig) -> Iterator[str]:
    splits, panel, shares = windowed.splits, encoders.panel, encoders.price_action
    if not splits.train_end < splits.val_end < splits.test_end:
        yield (
            f"windowed.splits: must follow each other, found train_end {splits.train_end}, "
            f"val_end {splits.val_end}, test_end {splits.test_end}"
        )
    width, heads = encoders.transformer.width, encoders.transformer.heads
    if width % heads or width % 2:  # positions are pairs of sine and cosine
        yield f"encoders.transformer.width: {width} must be even and a multiple of heads = {heads}"
    if shares.train_share + shares.validation_share >= 1:
        yield (
            f"encoders.price_action.validation_share: {shares.validation_share:g} beside "
            f"train_share = {shares.train_share:g} leaves nothing for the test"
        )
    narrowest = min(2 * encoders.jade.hidden, width)
    if panel.embedding_size > narrowest:
        yield (
            f"encoders.panel.embedding_size: {panel.embedding_size} components of an embedding of "
            f"{narrowest} columns (2 x jade.hidden, transformer.width); lower it to those, too"
        )
    if panel.window_length > encoders.transformer.window_length:
        yield (
            f"encoders.panel.window_length: {panel.window_length} sessions are more than "
            f"encoders.transformer.window_length = {encoders.transformer.window_length}"
        )


def require_shock_sectors(config: RunConfig, sectors: Iterable[str]) -> None:
    """Refuse a stress test of sectors for which no shock is named.

    Args:
        config: of the run.
        sectors: of the market.

    Raises:
        ConfigError: naming the sectors and the choices.
    """
    mapped, order = config.market_profile.stress.sectors, config.stress.sectors
    missing = [name for name in sectors if name not in mapped]
    if missing and config.stress.shocks:
        name = json.dumps(missing[0], ensure_ascii=False)  # as YAML takes any name
        raise ConfigError(
            f"stress test: market_profile.stress.sectors names no shock sector for "
            f"{', '.join(missing)}; expected one of {', '.join(order)} for each: write "
            f"`market_profile: {{stress: {{sectors: {{{name}: {order[0]}}}}}}}` and so on "
            "in a file, and give it with --config beside the options of the run; `stress: "
            "{shocks: []}` there leaves the shocks out"
        )


def plain_number(text: str) -> str:
    """Return how a number is written in YAML that stands there as people write it, else nothing.

    Examples:
        >>> plain_number("1e-3"), plain_number("45 %"), plain_number("0,45")
        ('1.0e-3', '0.45 if it is a share', '0.45')
        >>> plain_number("1,234"), plain_number("ten")
        ('', '')
    """
    exponent = EXPONENT_WITHOUT_POINT.fullmatch(text)
    if exponent:
        return f"{exponent[1]}.0{exponent[2]}"
    number = NUMBER_OF_PEOPLE.fullmatch(text)
    if number is None or (not number["percent"] and "," not in number["digits"]):
        return ""
    value = float(number["digits"].replace(",", "."))
    return f"{value / 100:.12g} if it is a share" if number["percent"] else f"{value:.12g}"
