"""What a transformer of candles reads: the table on a device, its windows, and their scaling."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.encoders.networks.transformer import PriceActionTransformer
from hrl_sarp.encoders.windows.cut import gather
from hrl_sarp.features import candles
from hrl_sarp.price_action.buys.windows import CandleWindows, fit_scaling
from hrl_sarp.run.session import derive_seed

FIRST_WEIGHTS = 0
"""Role of a derived seed."""
AT_ONCE = 128
"""Windows of an evaluated batch. More would not fit into a processor's cache."""


class CandleInputs:
    """The candles of one file on a device, and a network of random weights that reads them.

    Rows are the first rows of windows in the table of candles.
    """

    def __init__(self, windows: CandleWindows, config: RunConfig, device: torch.device) -> None:
        """Make the network, and fit the scaling on the training windows."""
        self.windows, self.device = windows, device
        torch.manual_seed(derive_seed(config.seed, FIRST_WEIGHTS))
        network = PriceActionTransformer(len(candles.COLUMNS), config.encoders.transformer)
        self.network = network.to(device)
        self.table = torch.from_numpy(windows.table.astype(np.float32)).to(device)
        self.first = {
            span: torch.from_numpy(rows).to(device) for span, rows in windows.first.items()
        }
        """First rows of the windows of each span."""
        levels = config.encoders.price_action.levels
        self.scaling = fit_scaling(self.table, self.first["train"], windows.length, levels)

    def read(self, rows: Int[Tensor, " B"]) -> Float[Tensor, "B L F"]:
        """Return windows as the network reads them."""
        return self.scaling.apply(gather(self.table, rows, self.windows.length))

    def last_candles(self, span: str) -> Float[np.ndarray, "W F"]:
        """Return the last candle of each window of a span, scaled."""
        blocks = (self.read(rows)[:, -1] for rows in self.first[span].split(AT_ONCE))
        return torch.cat(list(blocks)).double().cpu().numpy()

    @torch.no_grad()
    def answers(self, span: str) -> Float[Tensor, " W"]:
        """Ask the network about the windows of a span, in the order of time."""
        self.network.eval()
        return torch.cat(
            [self.network(self.read(rows)) for rows in self.first[span].split(AT_ONCE)]
        )

    def describe(self, rows: Int[Tensor, " B"]) -> str:
        """Say when windows begin, for the message of a run that diverges."""
        times = self.windows.bars.timestamps[rows.cpu().numpy()]
        return f"windows that begin {times.min()} to {times.max()}"
