"""The deployed pair as files for programs without torch: two ONNX graphs and what they mean."""

from hrl_sarp.daily.export.write import Exported, export_agents, require_room

__all__ = ["Exported", "export_agents", "require_room"]
