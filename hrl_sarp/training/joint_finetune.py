"""Phase 5: trains both agents in turns, each with the current other one, at low learning rates."""

from dataclasses import dataclass, field, replace
from typing import Any

from loguru import logger

from hrl_sarp.agents import MacroAgent, MicroAgent
from hrl_sarp.agents.files import networks_of, set_networks
from hrl_sarp.agents.ppo.algorithm import MacroPPO
from hrl_sarp.agents.td3.algorithm import MicroTD3
from hrl_sarp.fitting import History
from hrl_sarp.fitting.history import Axis
from hrl_sarp.run.checkpoints import restoring
from hrl_sarp.run.phases import PHASES
from hrl_sarp.run.session import derive_seed
from hrl_sarp.run.terminal import PhaseBar, phase_progress
from hrl_sarp.training.phase import PhaseContext, PhaseResult
from hrl_sarp.training.rl_loop import EVALUATION, LoopPlan, run_loop, stage_summaries
from hrl_sarp.training.selection.selector import START, Selector
from hrl_sarp.training.train_agents import (
    macro_algorithm,
    macro_plan,
    micro_algorithm,
    micro_plan,
)

NUMBER = 5
PARTS = ("macro", "micro")


@dataclass
class Pair:
    """Both agents, and the results of the rounds so far."""

    macro: MacroAgent
    micro: MicroAgent
    selector: Selector
    best: dict[str, Any]
    part: int = 0
    """Finished parts. A round has two: the macro agent's and the micro agent's."""
    stages: list[dict[str, Any]] = field(default_factory=list)
    """Summaries of the curriculum stages of each part."""

    def networks(self) -> dict[str, Any]:
        """Copy the networks of both agents: `macro` and `micro`, each with `actor` and `critic`."""
        return {"macro": networks_of(self.macro), "micro": networks_of(self.micro)}

    def load(self, networks: dict[str, Any]) -> None:
        """Put copied networks back."""
        set_networks(self.macro, networks["macro"])
        set_networks(self.micro, networks["micro"])

    def keep_actors(self, networks: dict[str, Any]) -> None:
        """Put copied actors back. The critics stay the last ones: they are not selected."""
        for agent, copied in ((self.macro, networks["macro"]), (self.micro, networks["micro"])):
            agent.actor.load_state_dict(copied["actor"])

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a checkpoint keeps, as plain values and tensors."""
        return {
            "networks": self.networks(),
            "selector": self.selector.state_dict(),
            "best": self.best,
            "part": self.part,
            "stages": self.stages,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where a checkpoint was written."""
        self.load(state["networks"])
        self.selector.load_state_dict(state["selector"])
        self.best, self.part, self.stages = state["best"], state["part"], state["stages"]


def run(context: PhaseContext) -> PhaseResult:
    """Train both agents in turns until validation stops improving, and write the best pair."""
    running = context.state(NUMBER).load()
    axis = Axis(context.decisions_before(NUMBER))
    with context.open_history(NUMBER, axis, running) as log:
        return _run(context, log, running)


def _run(context: PhaseContext, log: History, running: dict[str, Any] | None) -> PhaseResult:
    joint = context.config.curriculum.joint
    pair = _start(context)
    if running is None:
        _validate(context, pair, log)
    else:
        with restoring(context.state(NUMBER).path):
            pair.load_state_dict(running["extra"])
        running = running if running["algorithm"] else None
    last = joint.max_rounds * len(PARTS)
    total, done = _steps_before(last, context), _steps_before(pair.part, context)
    with phase_progress(f"phase {NUMBER}", total, done, "steps") as bar:
        while pair.part < last:
            # rounds since the best one; the first score is that of the pair before training
            age = len(pair.selector.scores) - 1 - pair.selector.best_index
            if pair.part % len(PARTS) == 0 and age >= joint.patience_rounds:
                break
            part = bar.shifted(_steps_before(pair.part, context))
            _train_part(context, pair, log, part, running)
            running = None
    pair.keep_actors(
        pair.best if pair.selector.settle(f"phase {NUMBER}") > START else _start(context).networks()
    )
    folder, files = context.folder(NUMBER), PHASES[NUMBER - 1]
    pair.macro.save(folder / files.best[0])
    pair.micro.save(folder / files.best[1])
    summary = {
        "rounds": pair.part // len(PARTS),
        **pair.selector.summary(),
        "stages": pair.stages,
    }
    return context.finish(NUMBER, log, summary)


def _start(context: PhaseContext) -> Pair:
    selector = Selector(
        context.config.curriculum.acceptance,
        context.config.seed,
        sessions_per_year=context.market.sessions.year,
    )
    return Pair(context.load_macro(3), context.load_micro(4), selector, best={})


def _train_part(
    context: PhaseContext,
    pair: Pair,
    log: History,
    bar: PhaseBar,
    running: dict[str, Any] | None,
) -> None:
    """Train one agent against the current other one; after a full round, validate the pair."""
    algorithm, plan = _prepare(context, pair)
    # a round begins with the pair that was validated last
    start = pair.selector.newest() if pair.part % len(PARTS) == 0 else None
    plan = replace(plan, start=start, extra=pair.state_dict())
    log.offset = _steps_before(pair.part, context)
    state = run_loop(algorithm, context, plan, log, bar, running)
    done = {"round": pair.part // len(PARTS) + 1, "trained": plan.prefix}
    summaries = stage_summaries(state.stages, state.selector.scores)
    pair.stages = [*pair.stages, *({**done, **stage} for stage in summaries)]
    if isinstance(algorithm, MacroPPO):
        pair.macro.adopt(algorithm)
    else:
        pair.micro.adopt(algorithm)
    pair.part += 1
    log.offset = _steps_before(pair.part, context)
    if pair.part % len(PARTS) == 0:
        _validate(context, pair, log)
    payload = {"algorithm": None, "history": log.rows, "extra": pair.state_dict()}
    context.state(NUMBER).save(payload)


def _steps_before(part: int, context: PhaseContext) -> int:
    """Count the steps of both agents in the parts before this one."""
    joint = context.config.curriculum.joint
    whole, rest = divmod(part, len(PARTS))
    return whole * (joint.macro_steps + joint.micro_steps) + rest * joint.macro_steps


def _prepare(context: PhaseContext, pair: Pair) -> tuple[MacroPPO | MicroTD3, LoopPlan]:
    """Build the algorithm of this part, without warm-up: the critics are trained already."""
    joint = context.config.curriculum.joint
    seed = derive_seed(context.config.seed, NUMBER, pair.part)
    if PARTS[pair.part % len(PARTS)] == "macro":
        ppo = context.config.macro_agent.ppo
        rate = ppo.learning_rate * joint.learning_rate_factor
        ppo = ppo.model_copy(update={"learning_rate": rate, "critic_warmup_steps": 0})
        pair.macro.seed = seed
        macro = macro_algorithm(context, pair.macro, pair.micro, ppo)
        return macro, macro_plan(context, macro, pair.micro, NUMBER, joint.macro_steps)
    td3 = context.config.micro_agent.td3
    rate = td3.learning_rate * joint.learning_rate_factor
    td3 = td3.model_copy(update={"learning_rate": rate, "critic_warmup_updates": 0})
    pair.micro.seed = seed
    micro = micro_algorithm(context, pair.micro, pair.macro, td3)
    return micro, micro_plan(context, micro, pair.macro, NUMBER, joint.micro_steps)


def _validate(context: PhaseContext, pair: Pair, log: History) -> None:
    score = context.validation.score(pair.macro, pair.micro)
    if pair.selector.add(score):
        pair.best = pair.networks()
    log.add(0, {f"{EVALUATION}/{name}": value for name, value in score.figures().items()})
    logger.info(
        f"phase {NUMBER} round {pair.part // len(PARTS)}: validation objective "
        f"{score.objective_pct:+.2f} % a year"
    )
