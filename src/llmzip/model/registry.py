"""Find models: shipped and published ones by name or number, a user's by path, by name or by the id in an archive."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from llmzip.errors import ModelError, ModelMismatchError
from llmzip.mixing.layout import BYTES_PER_WEIGHT, MODEL_BYTES

if TYPE_CHECKING:
    from llmzip.mixing.initial_state import InitialState
    from llmzip.model.file import Model

SUFFIX = ".safetensors"
DEFAULT = "default"
MAX_FILE_BYTES = 1 << 30  # of a model; what is larger is none, and hashing it could take an hour
NONE = "none"  # no language model
NONE_FILE = "none.safetensors"  # beside the shipped models
SEARCH_PATH = "LLMZIP_MODEL_PATH"  # folders (or files), separated like PATH

# Shipped models: archive number -> (name, SHA-256 of the file). A number is never given to another file.
SHIPPED: dict[int, tuple[str, str]] = {
    4: ("default", "e3fe11954adf6cb47493242d409b688e3a1af5a9399736e43b1c512180532d9f"),
}

# Published models that `llmzip models get` fetches and imports: the same, for the file that the import gives.
PUBLISHED: dict[int, tuple[str, str]] = {
    5: ("smollm2-135m", "f0379294141898aa0b7dcc0f0d4631127049bccb15c06891e509d3979e32e387"),
}
WEIGHTS_OF_PUBLISHED = {5: 134_515_008}
ALIASES = {"large": "smollm2-135m"}

# The SHA-256 of none.safetensors, the initial state of frames without a language model, which their checksums include.
NONE_SHIPPED = "972e3e56b1c5bb1e888c3a9e03723c954798a697344c8a283d8aedb881cbc6b2"

# The initial state for short texts with the shipped model of this number: its file, beside it, and the SHA-256.
SHORT_FILE = "short.safetensors"
SHORT_SHIPPED = {4: "a8b06546594c77176d1bb9db72675463a0adc3fb5ab99435f73282e93f209abd"}


def numbered() -> dict[int, tuple[str, str]]:
    """Return the name and the SHA-256 of each model that archives name by a number."""
    return SHIPPED | PUBLISHED


def shipped_folder() -> Path:
    """Return the folder of the shipped models: inside the package, or beside `src` in a checkout."""
    inside = Path(__file__).parents[1] / "models"
    return inside if inside.is_dir() else Path(__file__).parents[3] / "models"


def user_folder() -> Path | None:
    """Return the folder of the models that this user has fetched or imported, None where there is no home folder."""
    data = os.environ.get("XDG_DATA_HOME", "")
    # The XDG specification says that a relative path is to be ignored.
    root = data if os.path.isabs(data) else os.path.expanduser("~/.local/share")
    return Path(root, "llmzip", "models") if os.path.isabs(root) else None


def _search_path() -> list[Path]:
    found: list[Path] = []
    entries = [*map(Path, filter(None, os.environ.get(SEARCH_PATH, "").split(os.pathsep))), user_folder()]
    for path in filter(None, entries):
        found += sorted(path.glob("*" + SUFFIX)) if path.is_dir() else [path]
    return found


def available() -> dict[str, Path]:
    """Return the models that can be given by name: shipped ones, those on LLMZIP_MODEL_PATH, the user's own."""
    shipped = [shipped_folder() / (name + SUFFIX) for name, _ in SHIPPED.values()]
    found: dict[str, Path] = {}
    for path in [*shipped, *_search_path()]:
        if path.name.endswith(SUFFIX) and path.is_file() and path.stat().st_size <= MAX_FILE_BYTES:
            found.setdefault(path.name.removesuffix(SUFFIX), path)
    return found


def digest_of(path: Path) -> bytes:
    """Return the SHA-256 of a model file, which names it in archives."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def locate(name: str) -> Path:
    """Return the file of the model called `name`: a path, or a name of :func:`available`, or its alias."""
    if name == NONE:
        raise ModelError("none means no language model, and here one is needed (give its name or file)")
    if name.endswith(SUFFIX) or os.sep in name:
        path = Path(name)
        if not path.is_file():
            raise ModelError(f"there is no model file {name}")
        return path
    name = ALIASES.get(name, name)
    candidates = [shipped_folder() / (name + SUFFIX), *_search_path()]
    for path in candidates:
        if path.name == name + SUFFIX and path.is_file():
            return path
    if name in (published for published, _ in PUBLISHED.values()):
        raise ModelError(f"the model {name} is not here (get it: llmzip models get {name})")
    hint = f"see llmzip models list; give a {SUFFIX} file, or put it on {SEARCH_PATH}"
    raise ModelError(f"there is no model called {name} ({hint})")


@functools.lru_cache(maxsize=2)
def _read(path: Path, _size: int, _mtime_ns: int) -> Model:
    from llmzip.model import file as modelfile

    return modelfile.read(path)


@functools.lru_cache(maxsize=64)
def _model_id(path: Path, _size: int, _mtime_ns: int) -> bytes:
    return digest_of(path)[:8]


def load(name: str = DEFAULT) -> Model:
    """Load a model by name or path; kept in memory for the next call."""
    path = locate(name)
    stat = path.stat()
    return _read(path, stat.st_size, stat.st_mtime_ns)


def number_of(digest: bytes) -> int | None:
    """Return the archive number of a shipped or published model, or None for any other."""
    for number, (_, shipped) in numbered().items():
        if digest.hex() == shipped:
            return number
    return None


def name_of(number: int) -> str | None:
    """Return the name of a numbered model, or None if this version does not know the number."""
    return numbered()[number][0] if number in numbered() else None


def memory_of(number: int | None, model_id: bytes | None) -> int:
    """Return the memory in bytes, about, that coding with the model that an archive names takes."""
    if number in PUBLISHED:
        return BYTES_PER_WEIGHT * WEIGHTS_OF_PUBLISHED[number]
    path = _path_of(model_id) if model_id is not None and number is None else None
    large = path is not None and path.stat().st_size > MODEL_BYTES
    return BYTES_PER_WEIGHT * path.stat().st_size if path and large else MODEL_BYTES


def title(number: int | None, model_id: bytes | None) -> str:
    """Return what to call the model that an archive names: arguments as for :func:`for_archive`."""
    if number is not None:
        return name_of(number) or f"number {number}"
    return model_id.hex() if model_id else NONE


def _path_of(model_id: bytes) -> Path | None:
    """Return the file of the model with an id, or with one that begins so; None if it is not here.

    Raises ModelError if there are several.
    """
    found: dict[bytes, Path] = {}
    for path in _search_path():
        if path.is_file():
            stat = path.stat()
            small = stat.st_size <= MAX_FILE_BYTES
            own = _model_id(path, stat.st_size, stat.st_mtime_ns) if small else b""  # called again for every frame
            if own == model_id:
                return path
            if own.startswith(model_id):
                found.setdefault(own, path)
    if len(found) > 1:
        raise ModelError(f"made with a model {model_id.hex()}..., of which there are several (give its file with -m)")
    return next(iter(found.values()), None)


def for_archive(number: int | None, model_id: bytes | None, named: str | None) -> Model:
    """Load the model an archive was made with.

    The archive holds either the `number` of a shipped or published model or the `model_id` of another (the first eight
    bytes of its SHA-256; two in the small form), or neither if its header is lost: then the checksum decides whether
    the guess was right.
    `named` is the user's choice, if any. Raises ModelError, which says which model is needed and where to put it.
    """
    if number is not None:
        if number not in numbered():
            known = "which only earlier versions of llmzip have (install one of them)"
            if number > max(numbered()):
                known = "which this llmzip does not know (update it)"
            raise ModelError(f"made with shipped model number {number}, {known}")
        name, digest = numbered()[number]
        model = load(named or name)
        if model.digest.hex() != digest:
            mend = f"llmzip models get -f {name}" if number in PUBLISHED else "install llmzip again"
            reason = f"made with the model {name} ({digest[:16]}), not with {named or 'the one here'}"
            raise ModelMismatchError(f"{reason} ({'leave out -m' if named else mend})")
        return model
    if model_id is None:
        return load(named or DEFAULT)
    wanted = model_id.hex()
    if named is not None:
        model = load(named)
        if not model.digest.startswith(model_id):
            raise ModelMismatchError(
                f"made with model {wanted}, not with {named} ({model.digest[:8].hex()}): give it with -m FILE"
            )
        return model
    path = _path_of(model_id)
    if path:
        return load(str(path))
    raise ModelError(f"made with model {wanted}, which is not here (give its file with -m, or put it on {SEARCH_PATH})")


def initial_state_for_bytes() -> tuple[InitialState, bytes]:
    """Return the mixer's initial state for frames without a language model, and its id, 32 bytes."""
    return _shipped_state(NONE_FILE, NONE_SHIPPED)


def initial_state_for_short(model: Model) -> tuple[InitialState, bytes]:
    """Return the mixer's state for short texts with a model, and its id, which is empty if it is the model's own."""
    number = number_of(model.digest)
    if number in SHORT_SHIPPED:
        return _shipped_state(SHORT_FILE, SHORT_SHIPPED[number])
    return model.initial_state, b""


def _shipped_state(name: str, expected: str) -> tuple[InitialState, bytes]:
    """Return an initial state of the package, and the SHA-256 of its file.

    Raises ModelError if the file is damaged: its checksums would blame the archives.
    """
    from safetensors.numpy import load

    from llmzip.mixing.initial_state import InitialState

    data = (shipped_folder() / name).read_bytes()
    digest = hashlib.sha256(data)
    if digest.hexdigest() != expected:
        raise ModelError(f"{name} is not the one of this version: the installation is damaged (install llmzip again)")
    return InitialState.from_tensors(load(data)), digest.digest()
