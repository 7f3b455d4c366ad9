"""The loop of the reinforcement phases: what Stable-Baselines3 records lands in the history."""

from hrl_sarp.fitting import History
from hrl_sarp.training.rl_loop import algorithm_logger


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
