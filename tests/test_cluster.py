"""Many files, and the frames of large ones, on a dask cluster."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from pathlib import Path

import helpers
import pytest
from texts import noise, words

import llmzip.cluster
from llmzip import cli
from llmzip.batch.plan import Item
from llmzip.cluster.tasks import PER_FILE, batches
from llmzip.errors import FileError

TEXTS = {f"{folder}/{i}.txt": words(40 + i, i) for folder in ("a", "b") for i in range(10)}


@pytest.fixture(scope="module")
def cluster(s3_server):
    """Two worker processes with the codec of the tests, which reach the S3 server."""
    from distributed import LocalCluster

    environment = {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, env=environment) as cluster:
        yield cluster


@pytest.fixture
def client(cluster, monkeypatch):
    from distributed import Client

    monkeypatch.setitem(sys.modules, "llmzip.api.stream", helpers.codec())
    with Client(cluster) as client:
        client.register_worker_callbacks(helpers.install)  # of workers that start later, too
        yield client


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A folder with texts, in the working folder."""
    monkeypatch.chdir(tmp_path)
    for name, text in TEXTS.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    return str(tmp_path / "in")


def content(archive: bytes) -> bytes:
    out = io.BytesIO()
    helpers.decompress_stream(io.BytesIO(archive), out)
    return out.getvalue()


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_folder_to_folder_and_back(client, source, tmp_path):
    out, back = tmp_path / "out", tmp_path / "back"
    told = []
    report = llmzip.cluster.compress_files(source, str(out), client=client, progress=told.append)
    assert (report.done, report.skipped, report.failures) == (20, 0, [])
    assert len(told) == 20
    assert files_below(out) == {f"{name}.lz": helpers.compress(text) for name, text in TEXTS.items()}
    assert (report.text, report.archive) == (sum(map(len, TEXTS.values())), sum(map(len, files_below(out).values())))
    again = llmzip.cluster.compress_files(source, str(out), client=client)
    assert (again.done, again.skipped) == (0, 20)
    assert llmzip.cluster.decompress_files(str(out), str(back), client=client).done == 20
    assert files_below(back) == TEXTS


def test_failures_are_those_of_single_files(client, source, tmp_path):
    names = [f"{source}/a/0.txt", "nosuch", f"{source}/a/1.txt"]
    report = llmzip.cluster.compress_files(names, str(tmp_path / "out"), client=client)
    assert (report.done, report.failures) == (2, [(os.path.abspath("nosuch"), "No such file or directory")])


def test_store_to_store(client, s3):
    for name, text in TEXTS.items():
        s3.pipe(f"bucket/in/{name}", text)
    report = llmzip.cluster.compress_files("s3://bucket/in/**/*.txt", "s3://bucket/out", client=client)
    assert (report.done, report.failures) == (20, [])
    assert {name: content(s3.cat(f"bucket/out/{name}.lz")) for name in TEXTS} == TEXTS


@pytest.mark.parametrize("size", [5000, 5001, 64_000])
def test_large_file_is_cut_by_frames_and_one_archive(client, tmp_path, size):
    """Of the same bytes as without a cluster; the last frame is full, or has one byte."""
    text = (words(1000) + noise(3000) + words(20_000, 2))[:size]
    (tmp_path / "large").write_bytes(text)
    os.utime(tmp_path / "large", (1e9, 1e9))
    source, target = str(tmp_path / "large"), tmp_path / "new/large.lz"
    llmzip.cluster.compress_file(source, str(target), client=client, frame_size=helpers.FRAME_BYTES)
    assert target.read_bytes() == helpers.compress(text)
    assert target.stat().st_mtime == 1e9


def test_large_file_that_changes_leaves_nothing(client, tmp_path, monkeypatch):
    (tmp_path / "large").write_bytes(words(1000))
    append = llmzip.container.format.Writer.append

    def change(writer, frame):
        (tmp_path / "large").write_bytes(words(1001))
        append(writer, frame)

    monkeypatch.setattr(llmzip.container.format.Writer, "append", change)
    source, target = str(tmp_path / "large"), str(tmp_path / "out" / "large.lz")
    with pytest.raises(FileError, match="has changed while it was read"):
        llmzip.cluster.compress_file(source, target, client=client, frame_size=helpers.FRAME_BYTES)
    assert os.listdir(tmp_path / "out") == []


def test_lost_worker_loses_nothing(client, tmp_path):
    texts = {f"{i:02}": b"sleep" + words(30, i) for i in range(40)}
    texts["large"] = b"".join((b"sleep" + words(300, i))[: helpers.FRAME_BYTES] for i in range(20))
    (tmp_path / "in").mkdir()
    for name, text in texts.items():
        (tmp_path / "in" / name).write_bytes(text)
    killed = []

    def kill(_):
        if not killed:
            busy = [address for address, tasks in client.processing().items() if tasks]
            pids = client.run(os.getpid, workers=busy[:1])
            killed.extend(pids.values())
            os.kill(killed[-1], signal.SIGKILL)

    report = llmzip.cluster.compress_files(
        str(tmp_path / "in"), str(tmp_path / "out"), client=client, frame_size=helpers.FRAME_BYTES, progress=kill
    )
    assert len(killed) == 1
    assert report.failures == []
    # What a lost worker had done of its batch is there already.
    assert (report.done + report.skipped, report.done > 30) == (41, True)
    assert files_below(tmp_path / "out") == {f"{name}.lz": helpers.compress(text) for name, text in texts.items()}


def test_file_that_ends_workers_fails_alone(cluster, client, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)
    names = [str(tmp_path / f"{i:02}") for i in range(40)]  # five in a batch
    for name in names:
        Path(name).write_bytes(b"kill" if name == names[12] else Path(name).name.encode() * 10)
    report = llmzip.cluster.compress_files(names, str(tmp_path / "out"), client=client)
    [(name, error)] = report.failures
    assert (name, report.done + report.skipped) == (names[12], 39)
    assert error.startswith("every worker that worked on it was lost")


def test_scheduler_has_few_tasks_at_a_time(client, tmp_path):
    (tmp_path / "large").write_bytes(noise(40 * helpers.FRAME_BYTES))
    most = []
    append = llmzip.container.format.Writer.append
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            llmzip.container.format.Writer,
            "append",
            lambda writer, frame: (most.append(len(client.futures)), append(writer, frame)),
        )
        source, target = str(tmp_path / "large"), str(tmp_path / "large.lz")
        llmzip.cluster.compress_file(source, target, client=client, frame_size=helpers.FRAME_BYTES)
    assert len(most) == 40
    assert max(most) <= 2 * llmzip.cluster.run.TASKS_PER_THREAD + 1


def test_batches_are_of_about_equal_size():
    files = [Item(str(i), None, size) for i, size in enumerate([10, 10, 10**6, 10, None, 10**7])]
    sizes = [[item.size for item in batch] for batch in batches(files, 10**6)]
    assert sizes == [[10, 10], [10**6], [10, None], [10**7]]
    assert [len(batch) for batch in batches([Item("", None, 0)] * 10, 4 * PER_FILE)] == [4, 4, 2]


def test_command_line(client, source, capfd):
    def run(*args):
        with pytest.raises(SystemExit) as info:
            cli.cli([*args, "--json", "--cluster", client.scheduler.address], prog_name="llmzip")
        return info.value.code, json.loads(capfd.readouterr().out)

    code, report = run("compress", "-r", source, "--output-dir", "out")
    assert (code, report["done"]) == (0, 20)
    code, report = run("compress", "-r", source, "--output-dir", "out")  # it resumes by itself
    assert (code, report["skipped"]) == (0, 20)
    Path("out/a/3.txt.lz").write_bytes(b"damaged")
    code, report = run("test", "-r", "out")
    assert (code, report["done"], report["failures"]) == (
        1,
        19,
        [{"name": os.path.abspath("out/a/3.txt.lz"), "error": "not an llmzip archive"}],
    )


def test_cluster_that_cannot_be_reached_is_one_line(capfd, monkeypatch, tmp_path):
    import dask

    (tmp_path / "a").write_bytes(b"a")
    args = ["compress", str(tmp_path / "a"), "--cluster", "tcp://127.0.0.1:1"]
    with dask.config.set({"distributed.comm.timeouts.connect": "100ms"}), pytest.raises(SystemExit) as info:
        cli.cli(args, prog_name="llmzip")
    assert info.value.code == 1
    assert "llmzip: tcp://127.0.0.1:1: cannot be reached: " in capfd.readouterr().err
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(SystemExit):
        cli.cli(args, prog_name="llmzip")
    assert 'llmzip: tcp://127.0.0.1:1: needs dask (pip install "llmzip[cluster]")' in capfd.readouterr().err
