"""A checkpoint reads back as it was written, or is refused, whichever byte of its index changes."""

import struct
from pathlib import Path

import torch

from hrl_sarp.errors import CheckpointError
from hrl_sarp.run.checkpoints import load_payload, save_payload

END = b"PK\x05\x06"


def test_no_byte_of_the_index_of_an_archive_changes_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "agent.pt"
    save_payload(path, {"kind": "macro", "weights": torch.arange(6.0)})
    whole = path.read_bytes()
    (start,) = struct.unpack_from("<I", whole, whole.rindex(END) + 16)
    refusals = []
    for at in range(start, len(whole)):
        for bit in (1, 0x10):
            damaged = bytearray(whole)
            damaged[at] ^= bit
            path.write_bytes(damaged)
            try:
                found = load_payload(path)
            except CheckpointError as error:
                refusals.append(str(error))
            else:
                assert torch.equal(found["weights"], torch.arange(6.0)), at
    assert len(refusals) > 100
    assert all(str(path) in line for line in refusals)
