"""Compile a kernel for calls from Python, and once more, but less far, for calls from other kernels.

numba makes the same of both: a function with optimised code, machine code and wrappers for Python and C. A kernel that
calls others contains them, though, optimises them anew together with itself, and needs only their plain code. Left out
for calls from kernels, all the rest is half of the time that compiling takes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from llvmlite.binding import parse_bitcode
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler, compile_result
from numba.core.registry import CPUDispatcher

from llmzip.kernel_cache import Folder, KernelCache

OPTIONS = {"nopython": True, "nogil": True, "error_model": "numpy", "fastmath": False, "boundscheck": None}


class LinkedLibrary(JITCodeLibrary):
    """Code that is linked into the kernels that call it: functions are simplified, and never made machine code."""

    def _optimize_final_module(self) -> None:
        """Do nothing: the caller's library is optimised as a whole."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True


class LinkedCompiler(Compiler):
    """The compiler of what other kernels call."""

    def __init__(self, typing_context: Any, target_context: Any, library: Any, args: Any, *rest: Any):
        _, flags, _ = rest
        flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
        super().__init__(typing_context, target_context, library, args, *rest)

    def compile_extra(self, func: Callable[..., Any]) -> Any:
        """Compile *func* into a library of its own."""
        self.state.library = LinkedLibrary(self.state.targetctx.codegen(), func.__qualname__)
        return super().compile_extra(func)


class LinkedCache(KernelCache):
    """The cache of what other kernels call: plain code in the place of machine code."""

    kind = ".linked"

    def reduced(self, result: Any) -> tuple[Any, ...]:
        """Return the parts of a result that are kept, to be pickled."""
        described = result.fndesc
        described.typemap = described.calltypes = None  # large, and for compiling only
        environments = result._find_referenced_environments()
        library = result.library.name, result.library._final_module.as_bitcode()
        return *library, described, result.environment, result.signature, result.reload_init, environments

    def restored(self, target_context: Any, parts: tuple[Any, ...]) -> Any:
        """Return the result that was reduced."""
        name, bitcode, described, environment, signature, reload_init, environments = parts
        for function in reload_init:
            function()
        library = LinkedLibrary(target_context.codegen(), name)
        library._final_module = parse_bitcode(bitcode)
        library._finalize_final_module()
        return compile_result(
            library=library,
            fndesc=described,
            environment=environment,
            signature=signature,
            objectmode=False,
            lifted=(),
            reload_init=reload_init,
            referenced_envs=environments,
            target_context=target_context,
            typing_context=target_context.typing_context,
        )


class LinkedKernel(CPUDispatcher):
    """A kernel as other kernels call it."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any], folder: Folder | None):
        super().__init__(function, targetoptions=options, pipeline_class=LinkedCompiler)
        if folder:
            self._cache = LinkedCache(function, folder)

    def add_overload(self, result: Any) -> None:
        """Make a result known to callers: by its description, as it has no entry point."""
        result = result._replace(entry_point=result.fndesc)
        self.targetctx.insert_user_function(result.fndesc, result.fndesc, [result.library])
        self.overloads[tuple(result.signature.args)] = result


class Kernel(CPUDispatcher):
    """A kernel as Python calls it."""

    def __init__(self, function: Callable[..., Any], *, inlined: bool, folder: Folder | None):
        super().__init__(function, targetoptions={**OPTIONS, "forceinline": inlined})
        self._folder = folder
        self._wait: Callable[[], None] | None = None
        if folder:
            self._cache = KernelCache(function, folder)

    @functools.cached_property
    def linked(self) -> Any:
        """Return the LinkedKernel that others call, which is made when one of them is compiled."""
        return LinkedKernel(self.py_func, self.targetoptions, self._folder)

    def compiled_elsewhere(self, wait: Callable[[], None]) -> None:
        """Call `wait`, from any thread, before this is compiled or loaded: another process may be compiling it."""
        self._wait = wait

    def compile(self, sig: Any) -> Any:
        """Compile the kernel for a signature, or load it."""
        if self._wait:
            self._wait()
            self._wait = None
        return super().compile(sig)

    def add_overload(self, result: Any) -> None:
        """Take a result in, and give the functions linked into it their environments."""
        for environment in result._find_referenced_environments():
            result.codegen.set_env(environment.env_name, environment)
        super().add_overload(result)

    # What numba asks when another kernel calls this one.

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """Return the template for typing a call."""
        return self.linked.get_call_template(args, kws)

    def get_overload(self, sig: Any) -> Any:
        """Return what stands for the code for a signature."""
        return self.linked.get_overload(sig)
