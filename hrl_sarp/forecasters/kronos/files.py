"""Reads and writes Kronos: weights under their published names, with or without `config.json`."""

from pathlib import Path

from hrl_sarp.errors import CheckpointError, ForecastError
from hrl_sarp.forecasters.kronos.bars import CLIP
from hrl_sarp.forecasters.kronos.forecaster import KronosForecaster
from hrl_sarp.forecasters.kronos.predictor import KronosPredictor
from hrl_sarp.forecasters.kronos.sampling import Sampling
from hrl_sarp.forecasters.kronos.sizes import predictor_size, tokenizer_size
from hrl_sarp.forecasters.kronos.tokenizer import KronosTokenizer
from hrl_sarp.forecasters.weights import load_into, read_weights, require_finite, write_weights

MODEL, TOKENIZER = "model", "tokenizer"
"""Folders of the predictor and of the tokenizer in the folder of a run."""


def load_kronos(
    path_model: Path,
    path_tokenizer: Path | None = None,
    sampling: Sampling | None = None,
    *,
    max_context: int | None = None,
    context: int | None = None,
    clip: float = CLIP,
) -> KronosForecaster:
    """Read a forecaster.

    Args:
        path_model: folder or file of the predictor. Without a tokenizer, the folder that
            `save_kronos` wrote, which holds both.
        path_tokenizer: folder or file of the tokenizer.
        sampling: how paths are drawn; None takes the defaults.
        max_context: rows that the predictor reads at most; None takes that of the published size,
            512 for others.
        context: rows of a history that are read; None leaves room for the steps.
        clip: normalised bars are cut to plus and minus this, as in the training.

    Returns:
        The forecaster, on the CPU.

    Raises:
        MissingArtifactError: if a file is not there.
        CheckpointError: if a file is damaged, or the networks do not go together.
    """
    if path_tokenizer is None:
        path_model, path_tokenizer = path_model / MODEL, path_model / TOKENIZER
    tokenizer, predictor = load_tokenizer(path_tokenizer), load_predictor(path_model)
    try:
        return KronosForecaster(
            tokenizer, predictor, sampling, max_context=max_context, context=context, clip=clip
        )
    except ForecastError as error:
        raise CheckpointError(f"{path_model} with {path_tokenizer}: {error}") from error


def load_tokenizer(path: Path) -> KronosTokenizer:
    """Read a tokenizer.

    Args:
        path: folder or file of its weights.

    Returns:
        The tokenizer, in evaluation mode.
    """
    weights = read_weights(path)
    tokenizer = KronosTokenizer(tokenizer_size(weights))
    load_into(tokenizer, weights.state, weights.path)
    return tokenizer.eval()


def load_predictor(path: Path) -> KronosPredictor:
    """Read a predictor.

    Args:
        path: folder or file of its weights.

    Returns:
        The predictor, in evaluation mode.
    """
    weights = read_weights(path)
    predictor = KronosPredictor(predictor_size(weights))
    load_into(predictor, weights.state, weights.path)
    return predictor.eval()


def save_kronos(folder: Path, tokenizer: KronosTokenizer, predictor: KronosPredictor) -> None:
    """Write both networks so that `load_kronos` and the published code can read them.

    Args:
        folder: gets `model/` and `tokenizer/`, each with weights and `config.json`.
        tokenizer: from bars to tokens.
        predictor: of the same tokens.

    Raises:
        CheckpointError: if a weight is not finite; nothing is written then.
    """
    parts = ((folder / TOKENIZER, tokenizer), (folder / MODEL, predictor))
    for path, network in parts:
        require_finite(network.state_dict(), path)
    for path, network in parts:
        write_weights(path, network.state_dict(), network.size.model_dump())
