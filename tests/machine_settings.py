"""Settings of processor, libraries and threads, under each of which the same bytes must come out."""

import os
import subprocess
import sys
from pathlib import Path

from llmzip.network.packed import KERNELS

PROGRAM = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from texts import words

import io
from llmzip.coding.token_coder import TokenCoder
from llmzip.model.file import parse
from pathlib import Path
size, backends = int(sys.argv[3]), sys.argv[4].split(",")
if "int8" in backends:
    import torch
    torch.set_num_threads(int(sys.argv[5]))
model, data = parse(Path(sys.argv[2]).read_bytes()), words(2000)[:size]
for backend in backends:
    token_coder = TokenCoder(model, threads=int(sys.argv[5]), backend=backend)
    coded = token_coder.encode(data, lane_count=4, capacity=2 * size)
    assert token_coder.decode(coded.payload, coded.lane_bytes) == data
    print(hashlib.sha256(coded.payload).hexdigest())
"""

ALL = ",".join([*KERNELS, "int8", "float32"])
SETTINGS = {
    "as it is": (ALL, 1, {}),
    "two threads, SSE4.1": (ALL, 2, {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"}),
    "AVX2": (ALL, 2, {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}),
    "kernels for any CPU": ("int16", 2, {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}),
}


def digests(model: Path, size: int, backends: str, threads: int, environment: dict[str, str], cache: Path) -> set[str]:
    """Return the digests of the payloads that one process makes of the same text."""
    command = [sys.executable, "-c", PROGRAM, str(Path(__file__).parent), str(model), str(size), backends, str(threads)]
    env = os.environ | environment
    if "NUMBA_CPU_NAME" in environment:
        env["NUMBA_CACHE_DIR"] = str(cache)
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


SETTINGS = {
    "as it is": (ALL, 1, {}),
    "two threads, SSE4.1": (ALL, 2, {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"}),
    "AVX2": (ALL, 2, {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}),
    "kernels for any CPU": ("int16", 2, {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}),
}
