"""Lets an encoder take its weights out of those of a whole model."""

from typing import Any

from torch import nn

from hrl_sarp.errors import CheckpointError

PREFIX = "encoder."
"""Prefix of an encoder's weights among those of a larger module."""
_SHOWN = 3
"""Names of weights that a message shows."""


def accept_whole_models(encoder: nn.Module) -> None:
    """Let `load_state_dict` of an encoder read weights whose names begin with `encoder.`, too.

    Weights of which none is the encoder's are refused. PyTorch takes them with `strict=False`,
    changes nothing, and says so only in the lists that it returns.

    Args:
        encoder: the encoder alone, or a part of a larger module, which loads as before.

    Examples:
        >>> line = nn.Linear(2, 1)
        >>> accept_whole_models(line)
        >>> whole = nn.ModuleDict({"encoder": nn.Linear(2, 1), "decoder": nn.Linear(1, 2)})
        >>> missing, unexpected = line.load_state_dict(whole.state_dict(), strict=False)
        >>> missing, unexpected
        ([], ['decoder.weight', 'decoder.bias'])
    """
    encoder.register_load_state_dict_pre_hook(_without_prefix)


def _without_prefix(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    own = module.state_dict().keys()
    if prefix or not own or own & state.keys():
        return
    inside = {name: name.removeprefix(PREFIX) for name in state if name.startswith(PREFIX)}
    if not own & set(inside.values()):
        expected, found = (", ".join(sorted(names)[:_SHOWN]) for names in (own, state))
        raise CheckpointError(
            f"no weight matches the encoder: expected names like {expected}, found "
            f"{found or 'nothing'}; give the weights of an encoder of the same kind"
        )
    for name, short in inside.items():
        state[short] = state.pop(name)
