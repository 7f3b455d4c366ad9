"""Parameters and tokens of a forecast, counted by hand."""

from hrl_sarp.forecasters.cost import cost_of, networks_of
from hrl_sarp.forecasters.evaluation.baselines.walks import HarWalk
from hrl_sarp.forecasters.kronos.forecaster import KronosForecaster
from hrl_sarp.forecasters.kronos.predictor import KronosPredictor
from hrl_sarp.forecasters.kronos.sampling import Sampling
from hrl_sarp.forecasters.kronos.sizes import PREDICTORS, TOKENIZER_2K
from hrl_sarp.forecasters.kronos.tokenizer import KronosTokenizer
from hrl_sarp.forecasters.toto.forecaster import Toto2Forecaster, TotoForecaster
from hrl_sarp.forecasters.toto.model import Toto, TotoConfig
from hrl_sarp.forecasters.toto.second import Toto2, Toto2Config

TOTO = {"patch_size": 4, "embed_dim": 8, "num_heads": 2, "mlp_hidden_dim": 8}
TOTO2 = {"patch_size": 4, "d_model": 8, "d_ff": 8, "qk_dim": 4, "v_dim": 4}


def test_a_rule_costs_nothing_that_is_counted() -> None:
    assert networks_of(HarWalk()) == ()
    assert cost_of(HarWalk(), 21).flop == 0


def test_toto_draws_paths_beyond_its_first_patch() -> None:
    model = Toto(TotoConfig.base().model_copy(update=TOTO))
    forecaster = TotoForecaster(model, context_patches=6, n_paths=10)
    size = sum(weight.numel() for weight in model.parameters())
    assert (cost_of(forecaster, 4).tokens, cost_of(forecaster, 4).parameters) == (6, size)
    # 9 steps are three patches, two of them drawn by every path
    assert cost_of(forecaster, 9).tokens == 6 + 10 * 2
    assert cost_of(forecaster, 9).flop == 2 * size * 26


def test_toto_2_reads_the_steps_to_come_once() -> None:
    model = Toto2(Toto2Config.smallest().model_copy(update=TOTO2))
    assert cost_of(Toto2Forecaster(model, context_patches=6), 9).tokens == 6 + 2


def test_kronos_draws_every_row_of_every_path() -> None:
    networks = KronosTokenizer(TOKENIZER_2K), KronosPredictor(PREDICTORS["mini"])
    forecaster = KronosForecaster(*networks, Sampling(n_paths=3), context=40)
    assert networks_of(forecaster) == networks
    assert cost_of(forecaster, 21).tokens == 40 + 3 * 21
