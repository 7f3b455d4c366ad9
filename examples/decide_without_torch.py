"""Decides with exported agents, without torch: python decide_without_torch.py [FOLDER [INPUTS]].

FOLDER is what `hrl-sarp export` wrote, `export` if not given. INPUTS has the arrays of a day, as
example.npz; agents.json explains them. Without `weekly` arrays `daily.goal` stays in force.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime


def load(folder: Path, facts: dict, decision: str) -> onnxruntime.InferenceSession:
    """Open a graph after its hash was compared with the description."""
    path = folder / facts["files"][decision]["file"]
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != facts["files"][decision]["sha256"]:
        raise SystemExit(f"{path}: is not the file that agents.json describes; export again")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, decision: str, given: dict) -> dict:
    """Return the outputs of one decision; what is no number is refused."""
    inputs = {part.name: given[f"{decision}.{part.name}"] for part in session.get_inputs()}
    bad = [name for name, array in inputs.items() if not np.isfinite(array).all()]
    if bad:
        raise SystemExit(f"{decision} decision: not a number in {', '.join(bad)}; correct them")
    return dict(zip((p.name for p in session.get_outputs()), session.run(None, inputs)))  # noqa: B905 -- as many as asked for


def main(folder: Path = Path("export"), inputs: Path | None = None) -> None:
    """Print the goal, the weights, and how far both are from what is expected."""
    facts = json.loads((folder / "agents.json").read_text(encoding="utf-8"))
    given = dict(np.load(inputs or folder / "example.npz"))
    decided = {}
    if any(name.startswith("weekly.") for name in given):
        decided = run(load(folder, facts, "weekly"), "weekly", given)
        given["daily.goal"] = decided["goal"]
    decided |= run(load(folder, facts, "daily"), "daily", given)
    for name, share in zip(facts["sectors"], given["daily.goal"][0], strict=False):
        print(f"{share:8.4f}  of what is invested: {name}")
    print(f"{given['daily.goal'][0, len(facts['sectors'])]:8.4f}  cash of the goal")
    for name, weight in zip(facts["slots"], decided["weights"][0], strict=True):
        if weight > 0:
            print(f"{weight:8.4f}  {name}")
    expected = {k.partition(".")[2]: v for k, v in given.items() if k.startswith("expected.")}
    for name, array in expected.items():
        difference = np.abs(decided[name] - array).max()
        print(f"{difference:8.1e}  largest difference of {name}")
        if not difference <= facts["files"]["example"]["tolerance"]:
            raise SystemExit(f"{name}: differs from what is expected; install another onnxruntime")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
