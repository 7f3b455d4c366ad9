"""The loop of the phases of reinforcement learning: stages, evaluation, checkpoints, resume."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from loguru import logger
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger

from hrl_sarp.agents import MacroAgent, MicroAgent
from hrl_sarp.agents.files import networks_of, require_finite, set_networks
from hrl_sarp.agents.measures import mean_terms, portfolio_measures
from hrl_sarp.agents.ppo.algorithm import MacroPPO
from hrl_sarp.agents.td3.algorithm import MicroTD3
from hrl_sarp.config.schema import CurriculumConfig
from hrl_sarp.errors import StoppedEarly
from hrl_sarp.fitting import History
from hrl_sarp.fitting.history import Axis
from hrl_sarp.fitting.resume import require_finite_weights
from hrl_sarp.reporting.table import signed
from hrl_sarp.run.checkpoints import restore_rng, restoring, rng_state
from hrl_sarp.run.phases import PHASES
from hrl_sarp.run.terminal import PhaseBar, phase_progress
from hrl_sarp.training.phase import PhaseContext, PhaseResult
from hrl_sarp.training.selection.selector import START, Selector, mean_weights
from hrl_sarp.training.selection.validation import ValidationScore

EVALUATION = "eval"
"""Prefix of the curves on validation."""
MEASURE_EVERY = 8
"""Steps of the batch between two measurements of its portfolios."""

Algorithm = MacroPPO | MicroTD3
Stage = dict[str, Any]
"""A stage in a checkpoint: its first step, its mix, its steps and the sums of its reward terms."""


@dataclass
class LoopState:
    """State of a phase, apart from that of the algorithm."""

    selector: Selector
    stage: int = 0
    next_evaluation: int = 0
    best: dict[str, Any] = field(default_factory=dict)
    """Weights of the actor at the evaluation that is kept."""
    recent: list[dict[str, Any]] = field(default_factory=list)
    """Weights of the actors of the last evaluations, whose mean is evaluated."""
    stages: list[Stage] = field(default_factory=list)
    """First step and sums of reward terms of each stage."""


@dataclass(frozen=True)
class LoopPlan:
    """Settings in which the phases that use the loop differ."""

    number: int
    agent: MacroAgent | MicroAgent
    """Agent with the networks that were validated last. Those that are kept are copied from it."""
    total_timesteps: int
    eval_every: int
    adopt: Callable[[], Any]
    """Puts the trained networks into `agent`."""
    evaluate: Callable[[], ValidationScore]
    """Scores `agent` on validation."""
    start: ValidationScore | None = None
    """Score of the agent before training where it is known; None has it evaluated."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further values for the phase's checkpoint."""

    @property
    def title(self) -> str:
        """Name of the phase in messages."""
        return f"phase {self.number}"

    @property
    def prefix(self) -> str:
        """Prefix of the metric names: `macro` or `micro`."""
        return self.agent.kind


class PhaseLoop(BaseCallback):
    """Handles stop, checkpoint, stage, evaluation and progress at each rollout boundary."""

    def __init__(
        self,
        context: PhaseContext,
        plan: LoopPlan,
        state: LoopState,
        log: History,
        bar: PhaseBar,
    ) -> None:
        super().__init__()
        self.context, self.plan, self.state = context, plan, state
        self.log_, self.bar = log, bar
        self.saved_at = time.monotonic()

    @property
    def curriculum(self) -> CurriculumConfig:
        """Stages and intervals."""
        return self.context.config.curriculum

    def _on_training_start(self) -> None:
        self._enter_stage(self.state.stage)

    def _on_rollout_start(self) -> None:
        done = self.model.num_timesteps
        require_finite_weights(self.plan.title, self.model.policy, f"step {done}")
        if self.context.stop.is_set:  # before an evaluation, which may take long
            self.save()
            raise StoppedEarly
        if done >= self.state.next_evaluation:
            self.evaluate(done)
            self.state.next_evaluation = done + self.plan.eval_every
        self._leave_stage(done)
        self.bar.update(done)
        if time.monotonic() - self.saved_at >= self.curriculum.checkpoint_seconds:
            self.save()

    def _on_step(self) -> bool:
        reply = self.locals["infos"].reply
        means = mean_terms(reply)
        stage = self.state.stages[-1]
        stage["batch_steps"] += 1
        for name, value in means.items():
            stage["sums"][name] = stage["sums"].get(name, 0.0) + value
        self._record(means)
        if self.model.num_timesteps // self.training_env.num_envs % MEASURE_EVERY == 0:
            measures = portfolio_measures(self.context.tensors, reply, self.context.config.risk)
            self._record({k: float(v.mean()) for k, v in measures.items() if k not in means})
        return True

    def _record(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.logger.record_mean(f"{self.plan.prefix}/{name}", value)

    def evaluate(self, step: int) -> None:
        """Score the mean of the last networks on validation and keep it if it is the best.

        The policy before training is scored alone. What is scored is what is kept.
        """
        agent, state = self.plan.agent, self.state
        self.plan.adopt()
        if state.selector.scores:
            actors = [*state.recent, networks_of(agent)["actor"]]
            state.recent = actors[-self.curriculum.selection_window :]
            agent.actor.load_state_dict(mean_weights(state.recent))
        known = None if state.selector.scores else self.plan.start
        score = self.plan.evaluate() if known is None else known
        span, tensors = self.context.market.split.validation, self.context.tensors
        days = (span.start, span.stop - 1)
        require_finite(f"{self.plan.prefix}/growth", score.objective_pct, step, days, tensors)
        is_best = state.selector.add(score)
        if is_best:
            self.state.best = networks_of(agent)["actor"]
        values = score.figures().items()
        self.log_.add(step, {f"{EVALUATION}/{name}": v for name, v in values})
        place = f"phase {self.plan.number} step {step}"
        bound = state.selector.newest_bound_pct
        gain = "" if bound is None else f", over start at least {signed(bound)}%"
        kept = ", kept" if is_best and gain else ""
        logger.info(f"{place}: objective {signed(score.objective_pct)}%{gain}{kept}")
        logger.debug(
            f"{place}: validation objective in % a year, turnover {score.turnover_annual:.1f}, "
            f"alignment {score.alignment:.3f}"
        )

    def _leave_stage(self, done: int) -> None:
        """Enter the next stage after a window of good evaluations, or when the share is over."""
        # several stages may end at once; a resumed run checks again at the same step
        while self._is_stage_over(done) and self.state.stage + 1 < len(self.curriculum.stages):
            self._enter_stage(self.state.stage + 1)

    def _is_stage_over(self, done: int) -> bool:
        stage, window = self.curriculum.stages[self.state.stage], self.curriculum.selection_window
        since = self.state.stages[-1]["from_evaluation"]
        recent = self.state.selector.recent_mean(since, window)
        good = recent is not None and recent > stage.promote_above
        return good or done >= stage.max_share * self.plan.total_timesteps

    def _enter_stage(self, index: int) -> None:
        stage = self.curriculum.stages[index]
        if not self.state.stages or self.state.stages[-1]["name"] != stage.name:
            self.state.stages.append(
                {
                    "name": stage.name,
                    "from_step": self.model.num_timesteps,
                    "from_evaluation": len(self.state.selector.scores),
                    "regime_mix": stage.regime_mix and list(stage.regime_mix),
                    "batch_steps": 0,
                    "sums": {},
                }
            )
            logger.info(f"phase {self.plan.number} enters stage {stage.name}")
        self.state.stage = self.log_.stage = index
        env: Any = self.training_env
        env.starts.set_mix(stage.regime_mix)

    def save(self) -> None:
        """Write everything that a bit-identical continuation needs."""
        payload = {
            "algorithm": snapshot(self.model),  # type: ignore[arg-type]
            "rng": rng_state(),
            "loop": {**vars(self.state), "selector": self.state.selector.state_dict()},
            # Python's numbers instead of NumPy's: a checkpoint holds plain values
            "logged": {
                name: value.item() if isinstance(value, np.generic) else value
                for name, value in self.logger.name_to_value.items()
            },
            "logged_count": dict(self.logger.name_to_count),
            "history": self.log_.rows,
            "extra": self.plan.extra,
        }
        self.context.state(self.plan.number).save(payload)
        self.saved_at = time.monotonic()
        logger.debug(f"phase {self.plan.number} checkpoint at step {self.model.num_timesteps}")


def run_loop(
    algorithm: Algorithm,
    context: PhaseContext,
    plan: LoopPlan,
    log: History,
    bar: PhaseBar,
    running: dict[str, Any] | None,
) -> LoopState:
    """Train to the end of the plan, from `running` if given, and score the last networks."""
    rule, year = context.config.curriculum.acceptance, context.market.sessions.year
    state = LoopState(Selector(rule, context.config.seed, sessions_per_year=year))
    algorithm.set_logger(algorithm_logger(log))
    if running is not None:
        with restoring(context.state(plan.number).path):
            kept = running["loop"]
            state.selector.load_state_dict(kept["selector"])
            given = {f.name: kept[f.name] for f in fields(LoopState)}  # none may be missing
            state = LoopState(**{**given, "selector": state.selector})
            restore(algorithm, running["algorithm"])
            algorithm.logger.name_to_value.update(running["logged"])
            algorithm.logger.name_to_count.update(running["logged_count"])
        logger.info(f"phase {plan.number} continues at step {algorithm.num_timesteps}")
    loop = PhaseLoop(context, plan, state, log, bar)
    env: Any = algorithm.env  # it draws its first episodes before the callback starts
    env.starts.set_mix(context.config.curriculum.stages[state.stage].regime_mix)
    if running is not None:
        restore_rng(running["rng"])
    remaining = plan.total_timesteps - algorithm.num_timesteps
    algorithm.learn(
        remaining,
        callback=loop,
        log_interval=max(1, algorithm.n_envs) if isinstance(algorithm, MicroTD3) else 1,
        reset_num_timesteps=running is None,
    )
    require_finite_weights(plan.title, algorithm.policy, f"step {algorithm.num_timesteps}")
    algorithm.logger.dump(algorithm.num_timesteps)  # values of the last update
    loop.evaluate(algorithm.num_timesteps)
    log.stage = None
    bar.update(plan.total_timesteps)
    return state


def train_phase(
    context: PhaseContext,
    agent: MacroAgent | MicroAgent,
    algorithm: Algorithm,
    plan: LoopPlan,
) -> PhaseResult:
    """Run a whole phase: train, keep the best actor, write agent and metrics.

    The critic is the last one, whichever actor is kept: it is not selected, and a phase that starts
    from it needs no warm-up.
    """
    files = PHASES[plan.number - 1]
    folder = context.folder(plan.number)
    running = context.state(plan.number).load()
    axis = Axis(context.decisions_before(plan.number))
    done = running["algorithm"]["num_timesteps"] if running else 0
    total = plan.total_timesteps
    with context.open_history(plan.number, axis, running) as log:
        with phase_progress(f"phase {plan.number}", total, done, "steps") as bar:
            state = run_loop(algorithm, context, plan, log, bar, running)
        is_better = state.selector.settle(plan.title) > START
        kept = state.best if is_better else networks_of(agent)["actor"]
        set_networks(agent, {"actor": kept, "critic": plan.agent.critic.state_dict()})
        agent.save(folder / files.best[0])
        summary = {
            "timesteps": algorithm.num_timesteps,
            **state.selector.summary(),
            "stages": stage_summaries(state.stages, state.selector.scores),
        }
        return context.finish(plan.number, log, summary)


def snapshot(algorithm: Algorithm) -> dict[str, Any]:
    """Return networks, targets, optimisers, counters, env, last observation, replay and noise."""
    env: Any = algorithm.env
    last_observation: Any = algorithm._last_obs
    state: dict[str, Any] = {
        "policy": algorithm.policy.state_dict(),
        "num_timesteps": algorithm.num_timesteps,
        "n_updates": algorithm._n_updates,
        "episode_num": algorithm._episode_num,
        "progress_remaining": algorithm._current_progress_remaining,
        "last_observation": {k: torch.as_tensor(v) for k, v in last_observation.items()},
        "episode_starts": torch.as_tensor(np.asarray(algorithm._last_episode_starts)),
        "episodes": list(algorithm.ep_info_buffer or []),
        "env": env.state_dict(),
    }
    if isinstance(algorithm, MicroTD3):
        state["actor_optimizer"] = algorithm.actor.optimizer.state_dict()
        state["critic_optimizer"] = algorithm.critic.optimizer.state_dict()
        state["replay"] = algorithm.replay_buffer.state_dict()
        state["noise"] = algorithm.noise
        state["generator"] = algorithm.generator.get_state()
    else:
        state["optimizer"] = algorithm.policy.optimizer.state_dict()
    return state


def restore(algorithm: Algorithm, state: dict[str, Any]) -> None:
    """Put `snapshot` into a freshly built algorithm."""
    env: Any = algorithm.env
    algorithm.policy.load_state_dict(state["policy"])
    algorithm.num_timesteps = state["num_timesteps"]
    algorithm._n_updates = state["n_updates"]
    algorithm._episode_num = state["episode_num"]
    algorithm._current_progress_remaining = state["progress_remaining"]
    algorithm._last_obs = {k: v.numpy() for k, v in state["last_observation"].items()}
    algorithm._last_episode_starts = state["episode_starts"].numpy()
    algorithm.ep_info_buffer = deque(state["episodes"], maxlen=algorithm._stats_window_size)
    algorithm.ep_success_buffer = deque(maxlen=algorithm._stats_window_size)
    env.load_state_dict(state["env"])
    if isinstance(algorithm, MicroTD3):
        algorithm.actor.optimizer.load_state_dict(state["actor_optimizer"])
        algorithm.critic.optimizer.load_state_dict(state["critic_optimizer"])
        algorithm.replay_buffer.load_state_dict(state["replay"])
        algorithm.noise = state["noise"]
        algorithm.generator.set_state(state["generator"])
    else:
        algorithm.policy.optimizer.load_state_dict(state["optimizer"])


def stage_summaries(stages: list[Stage], scores: list[dict[str, float]]) -> list[dict[str, Any]]:
    """Return for each stage the means of its reward terms, and its mean validation score.

    `validation_objective_pct` is None without an evaluation.
    """
    ends = [stage["from_evaluation"] for stage in stages[1:]] + [len(scores)]
    summaries = []
    for stage, end in zip(stages, ends, strict=True):
        steps = stage["batch_steps"]
        growth = [row["objective_pct"] for row in scores[stage["from_evaluation"] : end]]
        summaries.append(
            {
                **{name: value for name, value in stage.items() if name != "sums"},
                "means": {name: total / steps for name, total in stage["sums"].items()},
                "validation_objective_pct": sum(growth) / len(growth) if growth else None,
            }
        )
    return summaries


class _HistoryWriter(KVWriter):
    """Writes the values of Stable-Baselines3's logger into a history."""

    def __init__(self, history: History) -> None:
        self.history = history

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        """Append what the algorithm recorded."""
        self.history.add(step, key_values)

    def close(self) -> None:
        """The history closes itself."""


def algorithm_logger(history: History) -> Logger:
    """Return a Stable-Baselines3 logger that writes into a history only."""
    return Logger(folder=None, output_formats=[_HistoryWriter(history)])
