"""Output files that appear under their names only when they are complete."""

import errno
import os
import resource
import stat
import threading
from functools import partial

import pytest

from llmzip import atomic_output
from llmzip.atomic_output import output_file
from llmzip.errors import FileError


@pytest.fixture(autouse=True, params=["unnamed", "temporary", "without /proc"])
def folder(request, tmp_path, monkeypatch):
    """An empty working folder, in which no temporary file may be left, on each kind of system."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    if request.param == "temporary":
        monkeypatch.delattr(os, "O_TMPFILE")
    elif request.param == "without /proc":
        monkeypatch.setattr(atomic_output, "DESCRIPTORS", "/nosuch")
    yield folder
    assert [name for name in os.listdir(folder) if name.startswith(".llmzip")] == []


@pytest.fixture
def source(folder):
    """The status of a file with permissions and times of its own."""
    path = folder / "source"
    path.write_bytes(b"source")
    path.chmod(0o640)
    os.utime(path, ns=(1_000_000_001, 2_000_000_002))
    return path.stat()


def write(name, data=b"data", *, during=lambda: None, **options):
    """Write a file and do something before it is complete."""
    with output_file(name, **options) as file:
        file.write(data)
        during()


def test_the_name_appears_at_the_end(folder):
    with output_file("out") as file:
        file.write(b"da")
        assert not os.path.exists("out")
        file.write(b"ta")
        assert not os.path.exists("out")
    assert (folder / "out").read_bytes() == b"data"


def test_permissions_and_times_are_copied(source):
    with output_file("out", source=source) as file:
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600
        file.write(b"data")
    status = os.stat("out")
    assert stat.S_IMODE(status.st_mode) == 0o640
    assert status.st_mtime_ns == 2_000_000_002


def test_without_a_source_file_the_umask_decides():
    before = os.umask(0o027)
    try:
        write("out", source=os.stat("/dev/null"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat("out").st_mode) == 0o640


def test_special_permission_bits_are_not_copied(folder):
    path = folder / "source"
    path.touch()
    path.chmod(0o4755)
    write("out", source=path.stat())
    assert stat.S_IMODE(os.stat("out").st_mode) == 0o755


def test_another_group_gets_no_more_than_all_others(source, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(os, "fchown", refuse)
    write("out", source=source)
    assert stat.S_IMODE(os.stat("out").st_mode) == 0o600


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("force", [False, True])
def test_a_failure_leaves_what_was_there(folder, error, force):
    if force:
        (folder / "out").write_bytes(b"before")

    def fail():
        raise error

    with pytest.raises(error):
        write("out", b"x" * 100_000, during=fail, force=force)
    assert os.listdir(folder) == (["out"] if force else [])
    if force:
        assert (folder / "out").read_bytes() == b"before"


def test_existing_files_are_overwritten_by_force_only(folder):
    (folder / "out").write_bytes(b"before")
    with pytest.raises(FileError, match="use -f") as info:
        write("out")
    assert info.value.filename == "out"
    assert (folder / "out").read_bytes() == b"before"
    write("out", b"after", force=True)
    assert (folder / "out").read_bytes() == b"after"


def test_a_file_created_meanwhile_is_not_overwritten(folder):
    with pytest.raises(FileExistsError) as info:
        write("out", b"late", during=lambda: (folder / "out").write_bytes(b"early"))
    assert info.value.filename == "out"
    assert (folder / "out").read_bytes() == b"early"


@pytest.mark.parametrize("renames", [True, False], ids=["renames to a new name", "renames only"])
def test_file_systems_without_links(folder, monkeypatch, renames):
    def refuse(*_, **__):
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    if not renames:
        monkeypatch.setattr(atomic_output, "_renameat2", lambda *_: False)
    write("out")
    assert (folder / "out").read_bytes() == b"data"
    with pytest.raises(FileExistsError):
        write("new", b"late", during=lambda: (folder / "new").write_bytes(b"early"))
    assert (folder / "new").read_bytes() == b"early"


@pytest.mark.parametrize("force", [False, True])
def test_the_input_is_not_the_output(folder, source, force):
    os.link("source", "twin")
    os.symlink("source", "pointer")
    for name in ("source", "twin", "pointer", "../work/source"):
        with pytest.raises(FileError, match="is the input"):
            write(name, source=source, force=force)
    assert (folder / "source").read_bytes() == b"source"


def test_folders_are_refused(folder):
    (folder / "sub").mkdir()
    with pytest.raises(FileError, match="is a directory"):
        write("sub", force=True)


@pytest.mark.parametrize("name", ["missing/out", "file/out", "x" * 300])
def test_errors_name_the_output(folder, name):
    (folder / "file").touch()
    with pytest.raises(OSError, match=r"\[Errno") as info:
        write(name)
    assert info.value.filename == name


def test_links_are_followed(folder):
    (folder / "sub").mkdir()
    (folder / "sub" / "real").write_bytes(b"before")
    os.symlink("sub/real", "pointer")
    with pytest.raises(FileError, match="exists"):
        write("pointer")
    write("pointer", b"after", force=True)
    assert os.path.islink("pointer")
    assert (folder / "sub" / "real").read_bytes() == b"after"


def test_a_link_to_nothing_needs_force(folder):
    os.symlink("nothing", "pointer")
    with pytest.raises(FileError, match="link to nothing"):
        write("pointer")
    write("pointer", force=True)
    assert os.path.islink("pointer")
    assert (folder / "nothing").read_bytes() == b"data"


def test_devices_are_written_directly():
    write("/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_pipes_are_written_directly(folder):
    os.mkfifo("pipe")
    found = []
    reader = threading.Thread(target=lambda: found.append((folder / "pipe").read_bytes()))
    reader.start()
    write("pipe")
    reader.join(10)
    assert found == [b"data"]
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)


def test_a_full_device_is_named():
    with pytest.raises(OSError, match="No space") as info:
        write("/dev/full", b"x" * 1_000_000)
    assert (info.value.errno, info.value.filename) == (errno.ENOSPC, "/dev/full")


@pytest.mark.parametrize("size", [100, 1_000_000])  # fails when flushed at the end, and while writing
def test_a_full_disk_leaves_nothing(folder, size):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as info:
            write("out", b"x" * size)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert info.value.filename == "out"
    assert os.listdir(folder) == []


def test_everything_is_on_disk_before_it_has_its_name(monkeypatch, request):
    calls = []
    for name in ("fsync", "link", "replace"):
        real = getattr(os, name)

        def record(*args, name=name, real=real, **options):
            what = "folder" if name == "fsync" and stat.S_ISDIR(os.fstat(args[0]).st_mode) else ""
            calls.append(name + what)
            return real(*args, **options)

        monkeypatch.setattr(atomic_output.os, name, record)
    write("out")
    write("out", force=True)
    linked = ["link", "link"] if request.node.callspec.params["folder"] == "unnamed" else []
    assert calls == ["fsync", "link", "fsyncfolder", "fsync", *linked, "replace", "fsyncfolder"]


def temporaries(folder):
    return list(folder.glob(".llmzip-*"))


@pytest.mark.parametrize("force", [False, True])
def test_a_link_in_the_place_of_the_temporary_file_is_found(folder, source, force):
    """Whoever may rename in the folder must not have another file's mode, owner and content changed."""
    victim = folder / "victim"
    victim.write_bytes(b"victim")
    victim.chmod(0o600)
    before = victim.stat()

    def swap():
        for temporary in temporaries(folder):
            temporary.unlink()
            temporary.symlink_to("victim")

    write_ = partial(write, "out", during=swap, source=source, force=force)
    if temporaries_are_used(folder):
        with pytest.raises(FileError, match="was replaced"):
            write_()
    else:
        write_()
        assert (folder / "out").read_bytes() == b"data"
    after = victim.stat()
    assert (after.st_mode, after.st_uid, after.st_mtime_ns, after.st_size) == (
        before.st_mode,
        before.st_uid,
        before.st_mtime_ns,
        before.st_size,
    )


def temporaries_are_used(folder):
    """Return whether files have a temporary name on this system, which may be one that the test pretends."""
    with output_file("probe"):
        return bool(temporaries(folder))


def test_nothing_in_the_folder_shows_a_file_that_is_not_complete(folder, request):
    unnamed = request.node.callspec.params["folder"] == "unnamed"
    with output_file("out") as file:
        file.write(b"x" * 1_000_000)
        assert len(temporaries(folder)) == (0 if unnamed else 1)


def test_a_folder_that_is_renamed_meanwhile_keeps_its_file(folder):
    (folder / "sub").mkdir()
    write("sub/out", during=lambda: (folder / "sub").rename(folder / "moved"))
    assert (folder / "moved" / "out").read_bytes() == b"data"


def test_what_was_written_can_be_read_through_its_descriptor():
    with output_file("out") as file:
        file.write(b"data")
        file.flush()
        assert os.pread(file.fileno(), 9, 0) == b"data"


@pytest.mark.parametrize("which", ["file", "folder"])
def test_a_failing_disk_is_an_error_and_one_that_cannot_tell_is_not(folder, monkeypatch, which):
    real = os.fsync

    def fail_with(number):
        def fsync(descriptor):
            if stat.S_ISDIR(os.fstat(descriptor).st_mode) == (which == "folder"):
                raise OSError(number, os.strerror(number))
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)

    fail_with(errno.EINVAL)
    write("first")
    fail_with(errno.EIO)
    with pytest.raises(OSError, match="Input/output error") as info:
        write("second")
    assert info.value.filename == "second"
    assert (folder / "first").read_bytes() == b"data"


@pytest.mark.parametrize("stopped", ["by an exception", "by a signal"])
def test_stopped_between_claim_and_name_no_empty_file_is_left(folder, monkeypatch, stopped):
    """On file systems that can neither link nor rename to a new name only."""
    monkeypatch.setattr(atomic_output._NewFile, "_link", lambda *_: False)
    monkeypatch.setattr(atomic_output, "_renameat2", lambda *_: False)

    def stop(*_, **__):
        assert (folder / "out").read_bytes() == b""
        if stopped == "by a signal":
            atomic_output.remove_unfinished()
            assert os.listdir(folder) == []
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write("out")
    assert os.listdir(folder) == []


@pytest.mark.parametrize("name", ["/dev/fd/{}", "/proc/self/fd/{}", "pointer"])
@pytest.mark.parametrize("force", [False, True])
def test_open_descriptors_are_appended_to(folder, name, force):
    (folder / "app").write_bytes(b"before ")
    with open("app", "ab") as open_file:
        os.symlink(f"/dev/fd/{open_file.fileno()}", "pointer")
        write(name.format(open_file.fileno()), force=force)
        open_file.write(b" after")
    assert (folder / "app").read_bytes() == b"before data after"


def test_the_descriptor_of_the_input_is_refused(folder):
    (folder / "app").write_bytes(b"before")
    with open("app", "ab") as open_file, pytest.raises(FileError, match="is the input file"):
        write(f"/dev/fd/{open_file.fileno()}", source=os.fstat(open_file.fileno()))


def test_a_device_that_becomes_a_file_meanwhile_is_not_written_to(folder, monkeypatch):
    (folder / "precious").write_bytes(b"before")
    monkeypatch.setattr(atomic_output, "check_target", lambda *_, **__: False)
    with pytest.raises(FileError, match="was replaced"):
        write("precious")
    assert (folder / "precious").read_bytes() == b"before"
