"""The loop of the reinforcement phases: what lands in the history, and what stages came to."""

from hrl_sarp.fitting import History
from hrl_sarp.training.rl_loop import Stage, algorithm_logger, stage_summaries


def test_the_algorithms_logger_writes_into_the_history_only() -> None:
    log = History()
    logger = algorithm_logger(log)
    logger.record("train/loss", 0.25)
    logger.record("time/iterations", 4)
    logger.record_mean("reward", 1.0)
    logger.record_mean("reward", 3.0)
    logger.dump(step=64)
    log.close()
    assert log.rows == [{"step": 64, "train/loss": 0.25, "reward": 2.0}]
    assert logger.name_to_value == {}


def stage(name: str, begun: tuple[int, int], steps: int, **sums: float) -> Stage:
    """Return the sums of a stage that began at an environment step and an evaluation."""
    return {
        "name": name,
        "from_step": begun[0],
        "from_evaluation": begun[1],
        "regime_mix": [0.0, 1.0, 0.0],
        "batch_steps": steps,
        "sums": sums,
    }


def test_each_stage_keeps_the_means_of_its_own_steps_and_evaluations() -> None:
    stages = [stage("calm", (0, 0), 2, growth=3.0), stage("stress", (20, 2), 1, growth=-3.0)]
    scores = [{"objective_pct": value} for value in (1.0, 4.0, -2.0)]
    calm, stress = stage_summaries(stages, scores)
    assert calm == {
        "name": "calm",
        "from_step": 0,
        "from_evaluation": 0,
        "regime_mix": [0.0, 1.0, 0.0],
        "batch_steps": 2,
        "means": {"growth": 1.5},
        "validation_objective_pct": 2.5,
    }
    assert stress["means"] == {"growth": -3.0}
    assert stress["validation_objective_pct"] == -2.0


def test_a_stage_that_ended_at_once_has_no_means() -> None:
    (found,) = stage_summaries([stage("skipped", (0, 0), 0)], [])
    assert (found["means"], found["validation_objective_pct"]) == ({}, None)
