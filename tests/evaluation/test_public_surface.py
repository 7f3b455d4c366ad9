from hrl_sarp import evaluation, metrics


def test_every_exported_name_exists() -> None:
    assert all(hasattr(evaluation, name) for name in evaluation.__all__)


def test_figures_statistics_and_baselines_are_reached_from_the_package() -> None:
    assert evaluation.metrics is metrics
    assert callable(evaluation.statistics.bootstrap_sharpe)
    assert callable(evaluation.baselines.make_baselines)
