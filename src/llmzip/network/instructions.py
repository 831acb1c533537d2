"""The instructions for products of integers that kernels are compiled to, on this machine or as numba's settings say.

An intrinsic that the target lacks ends the process ("Cannot select"), and LLVM's list of the host's features leaves
some out, such as the dot products of AArch64. So plain sums of products are compiled, and LLVM's choice is read.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import llvmlite.binding as llvm
from numba.core import codegen

from llmzip.kernel_cache import config

SUM = """
declare i32 @llvm.vector.reduce.add.v{count}i32(<{count} x i32>)
define i32 @dot(<{count} x i8> %a, <{count} x i8> %b) {{
    %x = {extend} <{count} x i8> %a to <{count} x i32>
    %y = sext <{count} x i8> %b to <{count} x i32>
    %products = mul <{count} x i32> %x, %y
    %sum = call i32 @llvm.vector.reduce.add.v{count}i32(<{count} x i32> %products)
    ret i32 %sum
}}
define <{count} x i8> @add(<{count} x i8> %a, <{count} x i8> %b) {{
    %sum = add <{count} x i8> %a, %b
    ret <{count} x i8> %sum
}}
"""
X86_BITS = {"x": 128, "y": 256, "z": 512}


class Instructions(NamedTuple):
    """What a target computes products of integers with.

    Attributes:
        family: ``x86``, ``aarch64``, or empty for others.
        bits: of the widest vectors of bytes that are added at once; 128 for other families.
        dot_bits: of the widest vectors whose groups of four bytes are multiplied and added up at once; 0 for none.
    """

    family: str
    bits: int
    dot_bits: int


def instructions_of(machine: llvm.TargetMachine) -> Instructions:
    """Return the instructions of a target."""
    if re.match(r"x86_64|amd64", machine.triple):
        assembly = _compiled(machine, "zext", 64)
        dots = re.findall(r"vpdpbusd\s.*%([xyz])mm", assembly)
        adds = re.findall(r"paddb\s.*%([xyz])mm", assembly)
        return Instructions("x86", *(max((X86_BITS[kind] for kind in found), default=0) for found in (adds, dots)))
    if re.match(r"aarch64|arm64", machine.triple):
        return Instructions("aarch64", 128, 128 if "sdot" in _compiled(machine, "sext", 16) else 0)
    return Instructions("", 128, 0)


def _compiled(machine: llvm.TargetMachine, extend: str, count: int) -> str:
    """Return the assembly for vectors of as many bytes as instructions take at most: more are not always split."""
    module = llvm.parse_assembly(SUM.format(extend=extend, count=count))
    module.triple = machine.triple
    assembly: str = machine.emit_assembly(module)
    return assembly


def numba_target() -> llvm.TargetMachine:
    """Return the target that numba compiles for."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    name = llvm.get_host_cpu_name() if config.CPU_NAME is None else config.CPU_NAME
    host: Any = codegen  # has no types
    features = host.get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES
    return llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(cpu=name, features=features)


HERE = instructions_of(numba_target())
