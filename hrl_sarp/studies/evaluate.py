"""The command `evaluate`: a walk-forward made of the file of a study, in a folder of its own."""

from pathlib import Path
from typing import Any

from hrl_sarp.config.loading import DEFAULT_CONFIG_DIR, name_changes
from hrl_sarp.config.study_schema import StudyConfig
from hrl_sarp.errors import ConfigError, OverwriteError
from hrl_sarp.market.cache import SAMPLE
from hrl_sarp.run.files import write_json
from hrl_sarp.studies.cell import read_file
from hrl_sarp.studies.walk_forward import Recipe, WalkForward

IMPACT_KEY = "impact_coefficient"
STUDY = "study.json"
"""In the folder of a study: what its file and the options of the command said."""


def planned(
    study: StudyConfig, name: str, folder: Path, config_dir: Path = DEFAULT_CONFIG_DIR
) -> WalkForward:
    """Make the walk-forward that a study describes; nothing is run or written.

    Args:
        study: as its file says.
        name: of the file, without its ending.
        folder: gets the cells and the tables.
        config_dir: folder of the configuration.

    Returns:
        The walk-forward over all folds of all markets.

    Raises:
        ConfigError: if a market has no folder, or no folds.
    """
    nowhere = [market for market, where in study.markets.items() if not where and market != SAMPLE]
    if nowhere:
        raise ConfigError(
            f"study {name}, markets.{nowhere[0]}: expected the folder of its collected data, found "
            f"none; give --market {nowhere[0]}=DIR (only {SAMPLE} comes with the package)"
        )
    recipe = Recipe.of(study, f"{name}.yaml", config_dir)
    folds = [fold for market in study.markets for fold in recipe.folds(market, study.folds.count)]
    return WalkForward(
        recipe,
        {market: Path(where) if where else None for market, where in study.markets.items()},
        folder,
        {fold.name: fold for fold in folds},
        tuple(study.seeds),
        name,
    )


def require_own_folder(study: StudyConfig, folder: Path) -> None:
    """Refuse the folder of another study.

    The folders of the data may differ: data that were moved are the same, and other data are
    refused by each cell.

    Args:
        study: that is to be run or summarised.
        folder: of its cells.

    Raises:
        OverwriteError: if another study has begun there; it names what differs.
    """
    path = folder / STUDY
    if not path.is_file():
        return
    there, here = read_file(path), _plain(study)
    # a study of an earlier version has no layer of impact; its table says so
    changes = name_changes({IMPACT_KEY: here[IMPACT_KEY], **there}, here)
    if changes:
        raise OverwriteError(
            f"{folder} holds another study ({'; '.join(changes)}): --output names another folder"
        )


def claim(study: StudyConfig, folder: Path) -> None:
    """Write into a folder which study it belongs to.

    Args:
        study: that is run there.
        folder: made if needed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / STUDY, _plain(study))


def _plain(study: StudyConfig) -> dict[str, Any]:
    return {**study.model_dump(mode="json"), "markets": list(study.markets)}
