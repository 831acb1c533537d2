"""Which instructions kernels may use, and what their inner loops are compiled to for other processors."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest
from tiles import loop, machine

import llmzip
from llmzip.network.instructions import HERE, Instructions, instructions_of, numba_target
from llmzip.network.matmul_int16 import pair_kind
from llmzip.network.matmul_octets import maddubs_kind, sdot_kind
from llmzip.network.matmul_vnni import quad_kind

PROCESSORS = {
    ("x86", "x86-64"): (128, 0),
    ("x86", "x86-64-v2"): (128, 0),
    ("x86", "haswell"): (256, 0),
    ("x86", "znver3"): (256, 0),
    ("x86", "skylake-avx512"): (512, 0),
    ("x86", "alderlake"): (256, 256),
    ("x86", "cascadelake"): (512, 512),
    ("x86", "sapphirerapids"): (512, 512),
    ("aarch64", "generic"): (128, 0),
    ("aarch64", "cortex-a72"): (128, 0),
    ("aarch64", "neoverse-n1"): (128, 128),
    ("aarch64", "apple-m1"): (128, 128),
}
SPILL = re.compile(r"\(%rsp\)|\(%rbp\)|\[sp\b")
# Multiply-adds of the instructions that a kind should be compiled to.
MADDUBS, VPDPBUSD, VPMADDWD = {"vpmaddubsw": 32}, {"{vex} vpdpbusd": 32}, {"vpmaddwd": 16}
SDOT, SMLAL = {"sdot": 16}, {"smlal": 4, "smlal2": 4}


@pytest.mark.parametrize(("family", "cpu"), PROCESSORS)
def test_instructions_are_those_of_the_processor(family: str, cpu: str) -> None:
    assert instructions_of(machine(family, cpu)) == Instructions(family, *PROCESSORS[family, cpu])


def test_instructions_here_are_those_of_the_target_of_numba() -> None:
    assert instructions_of(numba_target()) == HERE


# kind, family, processor, rows, blocks, what it is compiled to, multiply-adds for each instruction of the loop
LOOPS = {
    "maddubs, 3 rows": (maddubs_kind(256), "x86", "haswell", 3, 1, MADDUBS, 7.0),
    "maddubs, 3 rows, Zen": (maddubs_kind(256), "x86", "znver3", 3, 1, MADDUBS, 7.0),
    "maddubs, 1 row": (maddubs_kind(256), "x86", "haswell", 1, 2, MADDUBS, 6.0),
    "int16, 4 rows": (pair_kind("x86", 256), "x86", "haswell", 4, 1, VPMADDWD, 4.5),
    "AVX-VNNI, 3 rows": (quad_kind(256), "x86", "alderlake", 3, 1, VPDPBUSD, 15.5),
    "AVX-VNNI, 2 rows": (quad_kind(256), "x86", "alderlake", 2, 1, VPDPBUSD, 14.5),
    "AVX-VNNI, 1 row": (quad_kind(256), "x86", "alderlake", 1, 1, VPDPBUSD, 10.5),
    "sdot, 4 rows": (sdot_kind(), "aarch64", "neoverse-n1", 4, 1, SDOT, 9.5),
    "sdot, 4 rows, M1": (sdot_kind(), "aarch64", "apple-m1", 4, 1, SDOT, 9.5),
    "sdot, 1 row": (sdot_kind(), "aarch64", "neoverse-n1", 1, 4, SDOT, 7.5),
    "int16, AArch64, 4 rows": (pair_kind("aarch64", 128), "aarch64", "cortex-a72", 4, 1, SMLAL, 2.4),
    "int16, AArch64, 4 rows, any": (pair_kind("aarch64", 128), "aarch64", "generic", 4, 1, SMLAL, 2.4),
    "int16, AArch64, 1 row": (pair_kind("aarch64", 128), "aarch64", "cortex-a72", 1, 2, SMLAL, 1.7),
}


@pytest.mark.skipif(llvm.llvm_version_info < (22,), reason="counted with LLVM 22, the one in constraints.txt")
@pytest.mark.parametrize("case", LOOPS)
def test_inner_loops_have_the_right_instructions_and_keep_sums_in_registers(case: str) -> None:
    kind, family, cpu, rows, blocks, counts, least = LOOPS[case]
    lines = loop(kind, machine(family, cpu), rows, blocks)
    done = sum(each for line in lines for name, each in counts.items() if line.startswith(name + " "))
    assert not [line for line in lines if SPILL.search(line)]
    assert done / len(lines) >= least


PROGRAM = """
from llmzip.network.instructions import HERE
from llmzip.network.matmul import BINDERS, self_test

print(HERE.bits, HERE.dot_bits, *(self_test(BINDERS[KERNEL], (50, 30), rows) for rows in (1, 2, 5, 8, 36)))
"""


@pytest.mark.parametrize(("name", "cpu"), [("maddubs", "haswell"), ("maddubs", "skylake-avx512"), ("int16", "haswell")])
def test_kernels_for_older_processors_are_exact(name: str, cpu: str, tmp_path: Path) -> None:
    bits = PROCESSORS["x86", cpu][0]
    if HERE.family != "x86" or HERE.bits < bits:
        pytest.skip("not on this processor")
    settings = {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("KERNEL]", f"{name!r}]")],
        env={**os.environ, "PYTHONPATH": str(Path(llmzip.__file__).parents[1]), **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(bits), "0", *["True"] * 5]
