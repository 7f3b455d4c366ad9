"""The fingerprint of a market says whether agents and checkpoints belong to it."""

from dataclasses import fields, replace

import numpy as np

from hrl_sarp.config.loading import load_config
from hrl_sarp.market.sector_table import market_fingerprint
from hrl_sarp.risk import risk_tables
from tests import factories


def test_every_part_of_the_risk_tables_is_in_the_fingerprint() -> None:
    bare = factories.random_market(np.random.default_rng(0))
    risk = risk_tables(bare, load_config(market="sample"))
    prints = {market_fingerprint(bare), market_fingerprint(replace(bare, risk=risk))}
    for field in fields(risk):
        part = getattr(risk, field.name)
        other = part + 1 if isinstance(part, np.ndarray) else (*part, "more")
        changed = replace(risk, **{field.name: other})
        prints.add(market_fingerprint(replace(bare, risk=changed)))
    assert len(prints) == 2 + len(fields(risk))
