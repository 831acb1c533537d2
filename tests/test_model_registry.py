"""Finding models: by path, by name, by what an archive says, and the errors where they are not found."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from networks import tiny_model_file

from llmzip.errors import ModelError, ModelMismatchError
from llmzip.model import registry

SHAPE = {"width": 8, "hidden": 16, "layers": 1, "clusters": 4}
NONE_FILE = registry.shipped_folder() / "none.safetensors"
FIRST, SECOND, THIRD = (tiny_model_file(seed, **SHAPE) for seed in range(3))


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@pytest.fixture(autouse=True)
def shelf(tmp_path: Path, monkeypatch) -> Path:
    """Make FIRST the shipped model number 7, "house", and put SECOND on the search path as "guest"."""
    shipped, found = tmp_path / "shipped", tmp_path / "found"
    for folder, name, data in ((shipped, "house", FIRST), (found, "guest", SECOND)):
        folder.mkdir()
        (folder / f"{name}.safetensors").write_bytes(data)
    monkeypatch.setattr(registry, "shipped_folder", lambda: shipped)
    monkeypatch.setattr(registry, "SHIPPED", {7: ("house", digest(FIRST).hex())})
    monkeypatch.setenv("LLMZIP_MODEL_PATH", str(found))
    return tmp_path


def test_locate_finds_a_path_a_shipped_name_and_a_name_on_the_search_path(shelf: Path) -> None:
    guest = shelf / "found" / "guest.safetensors"
    assert registry.locate(str(guest)) == guest
    assert registry.locate("house") == shelf / "shipped" / "house.safetensors"
    assert registry.locate("guest") == guest


def test_search_path_holds_folders_and_files_in_order(shelf: Path, monkeypatch) -> None:
    other = shelf / "other"
    other.mkdir()
    (other / "guest.safetensors").write_bytes(THIRD)
    file = shelf / "lone.safetensors"
    file.write_bytes(THIRD)
    entries = [str(shelf / "missing"), "", str(other), str(shelf / "found"), str(file)]
    monkeypatch.setenv("LLMZIP_MODEL_PATH", os.pathsep.join(entries))
    assert registry.locate("guest") == other / "guest.safetensors"
    assert registry.locate("lone") == file


def test_shipped_names_come_before_the_search_path(shelf: Path) -> None:
    (shelf / "found" / "house.safetensors").write_bytes(THIRD)
    assert registry.load("house").digest == digest(FIRST)


def test_missing_models_are_named(shelf: Path) -> None:
    with pytest.raises(ModelError, match=r"no model called nobody .*LLMZIP_MODEL_PATH"):
        registry.locate("nobody")
    missing = str(shelf / "nothing.safetensors")
    with pytest.raises(ModelError, match=f"no model file {missing}"):
        registry.locate(missing)
    # A folder is not a model, and a name with a slash is a path.
    with pytest.raises(ModelError, match="no model file"):
        registry.locate(str(shelf / "found"))


def test_load_keeps_a_model_until_its_file_changes(shelf: Path) -> None:
    file = shelf / "found" / "guest.safetensors"
    model = registry.load("guest")
    assert registry.load(str(file)) is model
    file.write_bytes(THIRD)
    os.utime(file, ns=(1, 1))
    assert registry.load("guest").digest == digest(THIRD)


def test_numbers_and_names_of_shipped_models() -> None:
    assert registry.number_of(digest(FIRST)) == 7
    assert registry.number_of(digest(SECOND)) is None
    assert registry.name_of(7) == "house"
    assert registry.name_of(8) is None


def test_archive_of_a_shipped_model_needs_nothing_named() -> None:
    assert registry.for_archive(7, None, None).digest == digest(FIRST)


def test_archive_of_a_shipped_model_takes_its_file_from_elsewhere(shelf: Path) -> None:
    copy = shelf / "copy.safetensors"
    copy.write_bytes(FIRST)
    (shelf / "shipped" / "house.safetensors").unlink()
    assert registry.for_archive(7, None, str(copy)).digest == digest(FIRST)
    with pytest.raises(ModelError, match="no model called house"):
        registry.for_archive(7, None, None)


def test_archive_of_a_newer_version_names_the_number() -> None:
    with pytest.raises(ModelError, match="number 8, which this llmzip does not know"):
        registry.for_archive(8, None, None)


def test_archive_of_an_earlier_version_names_the_number() -> None:
    with pytest.raises(ModelError, match="number 6, which only earlier versions of llmzip have"):
        registry.for_archive(6, None, None)


def test_archive_of_a_shipped_model_refuses_another() -> None:
    message = rf"made with the model house \({digest(FIRST).hex()[:16]}\), not with guest"
    with pytest.raises(ModelMismatchError, match=message):
        registry.for_archive(7, None, "guest")


def test_archive_of_a_shipped_model_refuses_an_altered_file(shelf: Path) -> None:
    (shelf / "shipped" / "house.safetensors").write_bytes(THIRD)
    with pytest.raises(ModelMismatchError, match="not with the one here"):
        registry.for_archive(7, None, None)


def test_archive_of_a_user_model_finds_it_by_its_id() -> None:
    assert registry.for_archive(None, digest(SECOND)[:8], None).digest == digest(SECOND)


def test_archive_of_a_user_model_takes_the_one_named(shelf: Path) -> None:
    file = shelf / "mine.safetensors"
    file.write_bytes(THIRD)
    assert registry.for_archive(None, digest(THIRD)[:8], str(file)).digest == digest(THIRD)


def test_archive_of_a_user_model_that_is_not_here_tells_its_id() -> None:
    with pytest.raises(ModelError, match=f"made with model {digest(THIRD)[:8].hex()}, which is not here"):
        registry.for_archive(None, digest(THIRD)[:8], None)


def test_archive_of_a_user_model_refuses_another() -> None:
    wanted, given = digest(THIRD)[:8].hex(), digest(SECOND)[:8].hex()
    with pytest.raises(ModelMismatchError, match=rf"made with model {wanted}, not with guest \({given}\)"):
        registry.for_archive(None, digest(THIRD)[:8], "guest")


def test_huge_files_on_the_search_path_are_not_hashed(shelf: Path, monkeypatch) -> None:
    with (shelf / "found" / "disk-image.safetensors").open("wb") as file:
        file.truncate(40 << 30)  # sparse: it takes no room
    hashed = []
    monkeypatch.setattr(registry, "digest_of", lambda path: hashed.append(path.name) or bytes(32))
    with pytest.raises(ModelError, match="which is not here"):
        registry.for_archive(None, bytes([9] * 8), None)
    assert "disk-image.safetensors" not in hashed
    assert "disk-image" not in registry.available()
    assert hashed


def test_altered_start_values_of_none_are_not_used(shelf: Path) -> None:
    copy = shelf / "shipped" / "none.safetensors"
    copy.write_bytes(NONE_FILE.read_bytes())
    assert registry.initial_state_for_bytes()[1].hex() == registry.NONE_SHIPPED
    copy.write_bytes(NONE_FILE.read_bytes()[:-1] + b"?")
    with pytest.raises(ModelError, match=r"none.safetensors is not the one .* damaged"):
        registry.initial_state_for_bytes()


def test_none_is_no_file() -> None:
    with pytest.raises(ModelError, match="none means no language model"):
        registry.locate("none")
