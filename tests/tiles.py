"""Tiles compiled for any processor, and the instructions of their inner loops."""

from __future__ import annotations

import re

import llvmlite.binding as llvm
from llvmlite import ir

from llmzip.network.tile import TILE_ARGUMENTS, TileKind, emit_tile

TRIPLES = {"x86": "x86_64-unknown-linux-gnu", "aarch64": "aarch64-unknown-linux-gnu"}


def machine(family: str, cpu: str) -> llvm.TargetMachine:
    """Return a processor to compile for; at the level that numba compiles with."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    return llvm.Target.from_triple(TRIPLES[family]).create_target_machine(cpu=cpu, opt=3)


def loop(kind: TileKind, target: llvm.TargetMachine, rows: int, blocks: int = 1) -> list[str]:
    """Return the instructions of a tile's inner loop, compiled as numba does."""
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * TILE_ARGUMENTS), "tile")
    builder = ir.IRBuilder(function.append_basic_block())
    emit_tile(builder, function.args, rows, kind, blocks)
    builder.ret_void()
    module.triple = target.triple
    compiled = llvm.parse_assembly(str(module))
    passes = llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options(speed_level=3))
    passes.getModulePassManager().run(compiled, passes)
    # The loop is what stands between a label and a jump back to it.
    lines = [line.strip().replace("\t", " ") for line in target.emit_assembly(compiled).splitlines()]
    for start, line in enumerate(lines):
        if label := re.match(r"(\.L\w+):", line):
            for end in range(start + 1, len(lines)):
                if re.match(r"(j|b\.)\w+ " + re.escape(label[1]) + r"\b", lines[end]):
                    return [line for line in lines[start + 1 : end + 1] if line and not re.match(r"[.#/]", line)]
    raise AssertionError("there is no loop")
