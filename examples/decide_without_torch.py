"""Decides with exported agents, without torch: python decide_without_torch.py [FOLDER [INPUTS]].

FOLDER is what `hrl-sarp export` wrote, `export` if not given. INPUTS has the arrays of a day, as
example.npz; agents.json explains them. Without `weekly` arrays `daily.goal` stays in force, without
`sectors` arrays the embeddings that stand in `weekly.sectors`.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime


def run(folder: Path, facts: dict, graph: str, given: dict) -> dict:
    """Return the outputs of a graph; a changed file, and what is no number, are refused."""
    path = folder / facts["files"][graph]["file"]
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != facts["files"][graph]["sha256"]:
        raise SystemExit(f"{path}: is not the file that agents.json describes; export again")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    inputs = {part.name: given[f"{graph}.{part.name}"] for part in session.get_inputs()}
    bad = [name for name, array in inputs.items() if not np.isfinite(array).all()]
    if bad:
        raise SystemExit(f"{graph} decision: not a number in {', '.join(bad)}; correct them")
    return dict(zip((p.name for p in session.get_outputs()), session.run(None, inputs)))  # noqa: B905 -- as many as asked for


def main(folder: Path = Path("export"), inputs: Path | None = None) -> None:
    """Print the goal, the weights, and how far both are from what is expected."""
    facts = json.loads((folder / "agents.json").read_text(encoding="utf-8"))
    given = dict(np.load(inputs or folder / "example.npz"))
    decided, there = {}, {name.partition(".")[0] for name in given}
    if {"sectors", "weekly"} <= there:
        decided = run(folder, facts, "sectors", given)
        given["weekly.sectors"][..., : decided["embeddings"].shape[2]] = decided["embeddings"]
    if "weekly" in there:
        decided |= run(folder, facts, "weekly", given)
        given["daily.goal"] = decided["goal"]
    decided |= run(folder, facts, "daily", given)
    for name, share in zip(facts["sectors"], given["daily.goal"][0], strict=False):
        print(f"{share:8.4f}  of what is invested: {name}")
    print(f"{given['daily.goal'][0, len(facts['sectors'])]:8.4f}  cash of the goal")
    for name, weight in zip(facts["slots"], decided["weights"][0], strict=True):
        if weight > 0:
            print(f"{weight:8.4f}  {name}")
    expected = {k.partition(".")[2]: v for k, v in given.items() if k.startswith("expected.")}
    for name in [name for name in expected if name in decided]:
        difference = np.abs(decided[name] - expected[name]).max()
        print(f"{difference:8.1e}  largest difference of {name}")
        if not difference <= facts["files"]["example"]["tolerance"]:
            raise SystemExit(f"{name}: differs from what is expected; install another onnxruntime")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
