"""Schema of encoders (`encoder_config.yaml`, `windowed.yaml`) and of `forecasters.yaml`."""

from datetime import date
from typing import Annotated, Literal

from pydantic import Field, model_validator

from hrl_sarp.config.market_schema import Count, Fraction, Positive, Section
from hrl_sarp.config.study_schema import SearchSpace

Day = Annotated[date, Field(strict=False)]  # dates in quotes are text for YAML
MaskStrategy = Literal["random", "block", "patch"]
RebuildKind = Literal["bars", "moves"]


class RelativityConfig(Section):
    """Scale-free features of single bars (`feature_config` in windowed.yaml)."""

    ohlc_eps: Positive
    """Smallest range of a bar, in the price's unit divided by its close."""
    ohlc_ema_range_period: Count
    """Span of the exponential mean that a bar's range is compared with, in bars."""
    atr_period: Count
    """Bars in the average true range."""
    zigzag_k: Positive
    """Retrace on close that confirms a swing, in ATR."""
    zigzag_hybrid_confirm_lookback: Count
    """Bars that an extreme must have stood for the smaller retrace to confirm it."""
    zigzag_hybrid_min_retrace_atr: Positive
    """That smaller retrace on close, in ATR."""
    displacement_bars: list[Count]
    """Spans of bars over which the close's move is a column of its own: inputs of pretraining and
    of all variants. An empty list adds none."""
    displacement_atr_bars: Count
    """Bars in the average true range that these moves are divided by."""


class WindowSplitsConfig(Section):
    """Last days of the three spans; what lies after `test_end` is not read."""

    train_end: Day
    """Last day to train on."""
    val_end: Day
    """Last day of validation; it begins one window after `train_end`."""
    test_end: Day
    """Last day of the test; it begins one window after `val_end`."""


class GatesConfig(Section):
    """Least quality of the windows; a run that misses one is refused."""

    min_windows: Count
    """Least number of windows in each split."""
    max_mask_ratio: Fraction
    """Highest `mask_ratio`."""
    min_valid_ratio: Fraction
    """Least share of a window's bars that are not warm-up."""


class WindowedConfig(Section):
    """Windows of bars: `config/windowed.yaml`, or the file given as --config."""

    window_length: Count
    """Bars of a window."""
    stride: Count
    """Bars between the first bars of two windows."""
    warmup_bars: int = Field(ge=0)
    """First bars of a window that are neither masked nor part of a loss."""
    mask_ratio: Fraction
    """Share of the other bars that is masked."""
    max_missing_bars: int = Field(ge=0)
    """More missing bars in a row, counted in the file's usual spacing, are a closed session or an
    outage: a border that no window crosses. 0 takes every missing bar for one."""
    feature_config: RelativityConfig
    splits: WindowSplitsConfig
    gates: GatesConfig


class JadeConfig(Section):
    """Size of the BiLSTM encoder."""

    hidden: Count
    """Hidden units of each direction."""
    layers: Count
    """LSTM layers."""
    dropout: Fraction
    """Dropout between the layers."""


class TransformerConfig(Section):
    """Size of the transformer encoder."""

    window_length: Count
    """Candles of a window."""
    width: Count
    """Size of the vectors between the layers."""
    heads: Count
    """Attention heads."""
    layers: Count
    """Encoder layers."""
    feedforward: Count
    """Hidden units of each layer's feed-forward part."""
    head: Count
    """Hidden units of the classifier."""
    dropout: Fraction
    """Dropout in all layers."""


class PretrainingConfig(Section):
    """Masked reconstruction."""

    epochs: Count
    """Passes over the training windows, at most."""
    batch_size: Count
    """Windows of an update."""
    learning_rate: Positive
    """Highest learning rate of AdamW."""
    weight_decay: float = Field(ge=0)
    """Weight decay of AdamW."""
    warmup_epochs: int = Field(ge=0)
    """Epochs in which the learning rate rises linearly; a cosine follows."""
    final_learning_rate_share: Fraction
    """Learning rate of the last epoch, as a share of the highest."""
    max_grad_norm: Positive
    """Longer gradients are scaled down to this norm."""
    patience: Count
    """Epochs without a better validation loss after which training ends."""
    min_delta: float = Field(ge=0)
    """Improvements below this do not count."""
    save_top_k: Count
    """Best epochs whose checkpoints are kept."""
    mask_strategy: MaskStrategy
    """Single bars, one run of bars, or patches of bars."""
    patch_bars: Count
    """Bars of a patch (strategy patch)."""
    rebuilds: RebuildKind
    """The hidden bars, or how far the close moves to both sides of every bar."""
    cpu_bfloat16: bool
    """Compute in bfloat16 on a CPU, too; weights and losses stay float32. Always so on CUDA."""
    huber_delta: Positive
    """Error at which the loss turns linear."""


class FinetuneVariantConfig(Section):
    """One variant of the multi-task model."""

    features: list[str] = Field(min_length=1)
    """Input columns."""
    tasks: list[Literal["type", "pointers", "span", "countdown"]] = Field(min_length=1)
    """What the model is taught."""
    batch_size: Count
    """Windows of an update."""
    span_pos_weight: Positive | None
    """Weight of in-span bars in the loss; null takes outside / inside of the training labels."""


class FinetuningConfig(Section):
    """Multi-task training on labelled windows."""

    epochs: Count
    """Passes over the training windows, at most."""
    learning_rate: Positive
    """Learning rate of AdamW."""
    weight_decay: float = Field(ge=0)
    """Weight decay of AdamW."""
    max_grad_norm: Positive
    """Longer gradients are scaled down to this norm."""
    patience: Count
    """Epochs without a better validation loss after which training ends."""
    val_share: Fraction
    """Share of the windows, by whole groups, that chooses the epoch."""
    test_share: Fraction
    """Share of the windows, by whole groups, that is evaluated once at the end."""
    pointer_huber_delta: Positive
    """Error at which the loss of the pointers turns linear, in window lengths."""
    countdown_huber_delta: Positive
    """Error at which the loss of the countdown turns linear, in its scaled unit."""
    countdown_bars: Count
    """Bars before the expansion at which the countdown starts; it runs from 1 to 0."""
    dropout: Fraction
    """Dropout before the heads."""
    encoder_rate_share: float = Field(gt=0, le=1)
    """Learning rate of the encoder, as a share of that of the heads."""
    heads_first_epochs: int = Field(ge=0)
    """First epochs in which the heads learn alone, on an encoder that stays as it was loaded."""
    cpu_bfloat16: bool
    """Run the encoder in bfloat16 on a CPU; heads, weights and losses stay float32."""
    variants: dict[str, FinetuneVariantConfig]
    """Variants by the name given as --variant."""

    @model_validator(mode="after")
    def _lets_the_encoder_learn(self) -> "FinetuningConfig":
        if self.heads_first_epochs > self.patience:
            raise ValueError(
                f"heads_first_epochs: expected at most patience ({self.patience}), found "
                f"{self.heads_first_epochs}: training could end before the encoder learns"
            )
        return self


class ExpansionConfig(Section):
    """Rule that labels expansions (scripts/label_expansions.py)."""

    min_move_atr: Positive
    """Directed move of an expansion, in ATR of the bar before its first."""
    atr_bars: Count
    """Number of true ranges in that ATR, a plain mean."""
    max_retrace: Fraction
    """Largest retrace inside an expansion, as a share of its move."""
    max_bars: Count
    """Largest number of bars in an expansion."""
    context_bars: Count
    """Bars before an expansion that decide its class."""
    context_atr: Positive
    """Distance from the best close of these bars to the last, against the expansion, that makes a
    window a retracement; in ATR of the bar before the expansion."""
    block_days: Count
    """Days of a block of time; windows lie inside one, and one block's windows are a group."""


class PriceActionConfig(Section):
    """Supervised task of the transformer: is a buy worth it within the next candles?"""

    horizon: Count
    """Candles that the label looks ahead."""
    threshold_atr: Positive
    """A buy is a rise above this many ATR over the horizon."""
    target_offset: int = Field(ge=0)
    """Candles between the last of the window and the one whose label is predicted."""
    levels: Literal["relative", "raw"]
    """Prices divided by the window's last close, or unchanged."""
    max_missing_in_window: int = Field(ge=0)
    """No window crosses a longer stretch of missing candles (outages; nights may be crossed)."""
    max_missing_in_horizon: int = Field(ge=0)
    """No label's horizon crosses a longer stretch of missing candles; 0 ends it with a session."""
    train_share: Fraction
    """Share of the windows, the first by time, that is for training."""
    train_stride: Count
    """Training takes every n-th window, because neighbours are alike. The others take all."""
    validation_share: Fraction
    """Share after them that chooses epoch and threshold. The rest is the test."""
    min_windows: Count
    """Least number of windows in each of the three parts."""
    min_calls: Count
    """Least number of calls on validation of the chosen threshold."""
    epochs: Count
    """Passes over the training windows, at most."""
    batch_size: Count
    """Windows of an update."""
    learning_rate: Positive
    """Learning rate of AdamW."""
    weight_decay: float = Field(ge=0)
    """Weight decay of AdamW."""
    max_grad_norm: Positive
    """Longer gradients are scaled down to this norm."""
    patience: Count
    """Epochs without a better validation loss after which training ends."""


class PanelConfig(Section):
    """Daily windows of all stocks of a market (`pretrain-encoder --panel`)."""

    window_length: Count
    """Sessions of a window."""
    max_missing_sessions: int = Field(ge=0)
    """No window crosses a longer stretch of sessions without a bar of its stock."""
    stride: Count
    """Sessions between two training windows of a stock."""
    warmup_bars: int = Field(ge=0)
    """First sessions of a window that are neither masked nor part of a loss."""
    val_share: Fraction
    """Last part of the training span that chooses the epoch."""
    epochs: Count
    """Passes over the training windows, at most."""
    warmup_epochs: int = Field(ge=0)
    """Epochs in which the learning rate rises; the other values are those of `pretraining`."""
    batch_size: Count
    """Windows of an update."""
    clip: Positive
    """Bound of standardised inputs, in training deviations."""
    embedding_size: Count
    """Columns of an encoder's embedding: leading principal components, fitted on training."""
    block_windows: Count
    """Approximate number of windows that are embedded at once."""
    dtype: Literal["float32", "bfloat16"]
    """Number type of the table on disk."""
    head_penalties: list[Positive] = Field(min_length=1)
    """Ridge penalties that a head of volatility may have, a row of training and a unit of variance;
    the last `val_share` of the training span chooses."""


class EncodersConfig(Section):
    """Price-action encoders."""

    observe: Literal["none", "jade", "transformer", "both"]
    """The encoder of which the agents and the sector graph see something."""
    shows: Literal["embeddings", "volatility"]
    """What they see of a window: its embedding, or what a linear head on it says of the volatility
    of the next week."""
    jade: JadeConfig
    transformer: TransformerConfig
    pretraining: PretrainingConfig
    finetuning: FinetuningConfig
    expansion: ExpansionConfig
    price_action: PriceActionConfig
    panel: PanelConfig

    @model_validator(mode="after")
    def _shows_what_an_encoder_says(self) -> "EncodersConfig":
        if self.shows == "volatility" and self.observe == "none":
            raise ValueError(
                "shows: volatility needs an encoder, found observe: none; observe transformer, "
                "jade or both"
            )
        return self


class ObservedForecastsConfig(Section):
    """Forecasts of each stock that the agents and the sector graph see."""

    observe: Literal["none", "ewma", "har", "toto", "kronos", "toto2"]
    """Who forecasts. `ewma` and `har` are rules and show volatilities, the others are networks and
    show how returns are distributed."""
    every: Literal["week", "day"]
    """A forecast is made after the last close of each exchange week and holds until the next one,
    or it is made after each close."""
    paths: int = Field(ge=2)
    """Paths that Kronos draws, and Toto 1.0 for steps beyond its first patch."""
    weights: str | None
    """Folder of a run of `train-forecaster`, or of published weights; null takes
    `forecasters/MARKET/MODEL` beside `data/raw`."""
    tokenizer: str | None
    """Tokenizer of published Kronos weights; null for all others."""
    pretrained_until: Day | None
    """Last day of the data that published weights were fitted to, where their makers say it; null
    takes the end of the month of their release."""

    @model_validator(mode="after")
    def _names_what_belongs_together(self) -> "ObservedForecastsConfig":
        if self.tokenizer is not None and (self.observe != "kronos" or self.weights is None):
            raise ValueError("tokenizer belongs to weights of `observe: kronos`; leave it null")
        if self.observe == "toto2" and self.weights is None:
            raise ValueError(
                "observe: toto2 needs weights, the folder of its published files: nobody trains it "
                "here"
            )
        return self


class RatesConfig(Section):
    """How the learning rate of a forecaster changes from update to update."""

    shape: Literal["warmup_stable_decay", "one_cycle"]
    """Rise, stay and fall as 1 less a square root; or rise and fall as cosines, where `decay` is
    what the rise leaves."""
    warmup: float = Field(ge=0, lt=1)
    """Part of the updates in which the rate rises."""
    decay: float = Field(ge=0, le=1)
    """Part of the updates in which it falls."""
    last_share: float = Field(gt=0, le=1)
    """Share of the highest rate: the last one, or of `one_cycle` the first one."""


class SamplingConfig(Section):
    """How a trained Kronos draws the tokens of its paths."""

    temperature: Positive
    """Logits are divided by it: below 1 likely tokens become likelier."""
    top_p: float = Field(gt=0, le=1)
    """Only the likeliest tokens that together reach this probability are drawn."""


class ForecasterModelConfig(Section):
    """One model of `train-forecaster`: its sizes where it begins from scratch, and its training."""

    sizes: dict[str, int | float]
    """Constructor names of the published model -> values, for a model from scratch. What is not
    named is as published."""
    context: Count
    """Bars that a forecast reads."""
    horizon: Count
    """Bars that a training window has after them."""
    epochs: Count
    """Passes over the training windows, at most."""
    patience: Count
    """Epochs without a better validation loss after which training ends."""
    batch_size: Count
    """Windows of an update."""
    learning_rate: Positive
    """Highest rate of AdamW from scratch."""
    fine_tuning_rate: Positive
    """Highest rate where --weights are trained further."""
    weight_decay: float = Field(ge=0)
    """Weight decay of AdamW."""
    betas: Annotated[tuple[Fraction, Fraction], Field(strict=False)]
    """Decay of AdamW's running means."""
    eps: Positive
    """What AdamW adds to the root of the running mean of squares."""
    max_grad_norm: Positive
    """Longer gradients are scaled down to this norm."""
    rates: RatesConfig
    nll_weight: Fraction | None
    """Share of the likelihood in the loss of `toto`; null for the others."""
    clip: Positive | None
    """Bars in units of their context are cut to plus and minus this; null for `toto`. A tokenizer
    that `kronos` trains for itself takes the value of `kronos`."""
    sampling: SamplingConfig | None
    """Of `kronos`; null for the others."""


class ForecasterSpaceConfig(Section):
    """What `tune-forecaster` tries for one model.

    Keys are those of the model's settings. Two stand for others: `context_patches` is the context
    of Toto in patches, and `way` is what is trained of --weights: `all`, `freeze` (the last layers
    alone), or a number, the rank of low-rank additions.
    """

    scratch: SearchSpace
    """Tried where training begins from random weights."""
    weights: SearchSpace
    """Tried where --weights are trained further."""


class ForecasterTuningConfig(Section):
    """How `tune-forecaster` compares trials, and what it tries."""

    horizon: Count
    """Bars that every trial forecasts, whatever its patches and context."""
    origins: Count
    """Origins of validation, over all symbols at most; every trial has the same."""
    paths: int = Field(ge=2)
    """Paths that are drawn where quantiles need draws."""
    startup_trials: Count
    """Trials that are drawn at random; later ones follow what these show."""
    reduction: int = Field(ge=2)
    """One of so many trials goes on at each step of Hyperband."""
    temperatures: list[Positive] = Field(min_length=1)
    """Tried for the sampling of Kronos after the best trial."""
    top_ps: list[Annotated[float, Field(gt=0, le=1)]] = Field(min_length=1)
    """Tried with each temperature."""
    spaces: dict[Literal["toto", "kronos"], ForecasterSpaceConfig]
    """Value of --model -> what is tried."""


class ForecastersConfig(Section):
    """The file `config/forecasters.yaml`: what `train-forecaster` trains, and on what."""

    train_share: float = Field(gt=0, lt=1)
    """Part of the bars that trains, the earliest ones."""
    validation_share: float = Field(gt=0, lt=1)
    """Part after it that chooses the epoch; the rest is the test."""
    holdout_symbols: int = Field(ge=0)
    """Symbols that are left out of training and validation, if there are at least twice as many."""
    holdout_seed: int = Field(ge=0)
    """Picks them; runs of other seeds leave out the same ones, so that they can be compared."""
    train_windows: Count
    """Training windows of an epoch, at most."""
    validation_windows: Count
    """Windows of a validation, at most."""
    low_rank_scale: Positive
    """Factor on what --lora-rank adds to a weight."""
    models: dict[Literal["toto", "kronos", "kronos-tokenizer"], ForecasterModelConfig]
    """Value of --model -> its settings."""
    tuning: ForecasterTuningConfig

    @model_validator(mode="after")
    def _says_what_each_model_needs(self) -> "ForecastersConfig":
        for name, model in self.models.items():
            own = {"toto": ("nll_weight",), "kronos": ("clip", "sampling")}.get(name, ("clip",))
            missing = [key for key in own if getattr(model, key) is None]
            if missing:
                raise ValueError(f"models.{name}: expected a value of {missing[0]}, found null")
        return self

    @model_validator(mode="after")
    def _leaves_a_test(self) -> "ForecastersConfig":
        if self.train_share + self.validation_share >= 1:
            raise ValueError("expected train_share plus validation_share below 1, to leave a test")
        return self
