"""Modules as ONNX graphs: the same bytes for the same weights, and a session that runs them."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hrl_sarp.daily.export.decisions import DailyDecision, WeeklyDecision
from hrl_sarp.daily.export.sectors import SectorEmbeddings

OPSET = 18
"""Version of the operators in the graphs."""


Exportable = SectorEmbeddings | WeeklyDecision | DailyDecision


def to_onnx(module: Exportable, arrays: Mapping[str, Tensor]) -> bytes:
    """Export a module with the shapes of some arrays.

    Args:
        module: of a pair.
        arrays: one for each input; only their shapes and types count.

    Returns:
        The file. It names no folder and no time, so the same weights give the same bytes.
    """
    import onnx

    with torch.no_grad(), _quiet():
        program: Any = torch.onnx.export(
            module.eval(),
            tuple(arrays[name] for name in module.inputs),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(module.inputs),
            output_names=list(module.outputs),
            custom_translation_table=_translations(),
        )
    model: Any = program.model_proto
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info):
        part.ClearField("metadata_props")  # where in which file each node was written
    for part in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        part.ClearField("metadata_props")
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


class Session:
    """Runs a graph on one core.

    Args:
        content: of the file.
    """

    def __init__(self, content: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )
        self.inputs = tuple(part.name for part in self._session.get_inputs())
        self.outputs = tuple(part.name for part in self._session.get_outputs())

    def run(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs by their names.

        Args:
            arrays: one for each input; others are ignored.
        """
        found = self._session.run(None, {name: arrays[name] for name in self.inputs})
        return dict(zip(self.outputs, found, strict=True))


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return operators that the exporter does not have, or whose numbers it rounds.

    It writes plain numbers as float32, where those that guard a division are 0.
    """
    from onnx.helper import tensor_dtype_to_np_dtype
    from onnx.numpy_helper import from_array
    from onnxscript import opset18

    operators: Any = opset18

    def sort(self: Any, stable: Any = None, dim: int = -1, descending: bool = False) -> Any:  # noqa: FBT001, FBT002
        # TopK puts the lower index first among equals, as a stable sort does
        length = operators.Constant(value_ints=[self.shape[dim]])
        return operators.TopK(self, length, axis=dim, largest=int(descending), sorted=1)

    def number(s: Any, dtype: Any, **_: Any) -> Any:
        return operators.Constant(value=from_array(np.array(s, tensor_dtype_to_np_dtype(dtype))))

    return {torch.ops.aten.sort.stable: sort, torch.ops.aten.scalar_tensor.default: number}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter says of packages that nobody needs off the screen."""
    names = ("torch.onnx", "torch.onnx._internal.exporter._registration", "onnxscript")
    loggers = [logging.getLogger(name) for name in names]
    levels = [log.level for log in loggers]
    for log in loggers:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(loggers, levels, strict=True):
            log.setLevel(level)
