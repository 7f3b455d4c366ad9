"""Writes what a walk-forward came to: two pages, a picture, the figures as JSON."""

from dataclasses import asdict, replace
from typing import Any

from hrl_sarp.reporting.figure import save_png
from hrl_sarp.run.files import write_json, write_table, write_text
from hrl_sarp.run.terminal import run_progress, stretch
from hrl_sarp.run.trials import TrialLog
from hrl_sarp.studies.walk_forward.cells import WalkForward
from hrl_sarp.studies.walk_forward.chain import read_chains, read_skills
from hrl_sarp.studies.walk_forward.evidence import configurations_tried, evidence_of, search_of
from hrl_sarp.studies.walk_forward.report import pages
from hrl_sarp.studies.walk_forward.report.figures import drawn
from hrl_sarp.studies.walk_forward.report.frames import figures_frame, trials_frame
from hrl_sarp.studies.walk_forward.report.pages import Variant
from hrl_sarp.studies.walk_forward.report.tables import (
    CONTROL,
    differences_table,
    searches_table,
    skills_table,
)
from hrl_sarp.studies.walk_forward.verdicts import control, over_first, verdicts_of

TABLE, PAGE, CARD = "table.md", "report.html", "card.md"
FIGURES, SEARCHES, VARIANTS = "table.json", "searches.json", "variants.json"
FRAME, TRIALS = "table.parquet", "trials.parquet"
BETWEEN = "Variants against the first one, at equal exposure, seed by seed"


@run_progress()
@stretch(0.0, 1.0, "tables of the study")
def summarise(study: WalkForward) -> str:
    """Write the pages of a study: `table.md`, `report.html`, and `card.md` for a README.

    Beside them stand a picture for each variant, and the figures as `table.json`, `table.parquet`,
    `variants.json`, `searches.json` and `trials.parquet` (what the trial log holds of the study's
    folds).

    Args:
        study: folds that have not finished are left out, and their cells named.

    Returns:
        The page as Markdown.

    Raises:
        MissingArtifactError: if no fold has finished.
    """
    chains = read_chains(study)
    config = study.recipe.base(next(iter(study.data_dirs)))
    markets = {
        market: {name: each[market] for name, each in chains.items() if market in each}
        for market in study.data_dirs
    }
    log = TrialLog().trials()
    tried = {name: configurations_tried(each, log) for name, each in markets.items() if each}
    searches = {name: search_of(each, config) for name, each in markets.items() if each}
    variants = []
    for name, by_market in chains.items():
        found = verdicts_of(name, by_market, study.recipe.phases, config)
        weighed = {
            market: evidence_of(chain, found.agent, config, tried[market])
            for market, chain in by_market.items()
        }
        variants.append(Variant(found, weighed, by_market))
    pictures = {name: f"walk_forward_{name}.png" for name in chains}
    for variant in variants:
        picture = study.folder / pictures[variant.verdicts.variant]
        save_png(picture, drawn(variant.chains, variant.verdicts))
    between = over_first(chains, study.recipe.phases, config)
    skills = read_skills(study, chains)
    shared = [searches_table(searches)]
    if between:
        shared.insert(0, replace(differences_table("variant", between), title=BETWEEN))
    if skills:
        shared.insert(0, skills_table(skills))
    text = pages.markdown(study, variants, shared, pictures)
    write_text(study.folder / TABLE, text)
    write_text(study.folder / PAGE, pages.html(study, variants, shared))
    write_text(study.folder / CARD, pages.card(study, variants))
    write_table(study.folder / FRAME, figures_frame(variants))
    write_table(study.folder / TRIALS, trials_frame(log, set(study.folds)))
    write_json(study.folder / FIGURES, {v.verdicts.variant: _plain(v) for v in variants})
    plain = {"over_first": _deep(between), "volatility": _deep(skills)}
    write_json(study.folder / VARIANTS, plain)
    write_json(study.folder / SEARCHES, {name: asdict(each) for name, each in searches.items()})
    return text


def _deep(found: Any) -> Any:
    """Return nested mappings of figures as plain values."""
    if isinstance(found, dict):
        return {name: _deep(each) for name, each in found.items()}
    return asdict(found)


def _plain(variant: Variant) -> dict[str, Any]:
    evidence = {
        market: {title: asdict(each) for title, each in by_title.items()}
        for market, by_title in variant.weighed.items()
    }
    plain = asdict(variant.verdicts) | {"evidence": evidence}
    if variant.verdicts.variant == CONTROL:
        plain["control"] = asdict(control(variant.verdicts))
    return plain
