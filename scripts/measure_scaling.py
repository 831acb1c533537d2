"""Measure how compression scales: here, on a local cluster, and with simulated tasks on more threads than there are.

    python scripts/measure_scaling.py speed TEXT             # KB/s of one thread, by model
    python scripts/measure_scaling.py engine TEXT            # -j against a local cluster, and after a lost worker
    python scripts/measure_scaling.py scheduler              # what is left of the time of simulated tasks

TEXT is a file of any text; it is cut and repeated to the sizes that are asked for. The numbers of docs/scaling.md are
from here. They need a quiet machine; needs the extra `cluster`.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import llmzip.cluster
import llmzip.cluster.run
from llmzip.batch.plan import Item
from llmzip.batch.report import Outcome
from llmzip.batch.task import Work


def llmzip_(*args: object) -> None:
    """Run the command line."""
    subprocess.run([sys.executable, "-m", "llmzip", *map(str, args)], check=True)


def speed(options: argparse.Namespace) -> None:
    """Print the speed of one thread for each model."""
    text = options.text.read_bytes()[: options.size]
    for model in options.model:
        llmzip.compress(text[:10_000], model=model, threads=1)
        started = time.monotonic()
        archive = llmzip.compress(text, model=model, threads=1)
        middle = time.monotonic()
        assert llmzip.decompress(archive, threads=1) == text  # noqa: S101
        seconds = middle - started, time.monotonic() - middle
        print(f"{model}: {len(text)} bytes, ratio {len(text) / len(archive):.3f}, ", end="")
        print(", ".join(f"{len(text) / 1000 / one:.1f} KB/s" for one in seconds), "(compress, decompress)")


def make_files(folder: Path, text: bytes, options: argparse.Namespace) -> int:
    """Write the small files and the large one; return their bytes."""
    folder.mkdir()
    generator = random.Random(1)
    for i in range(options.files):
        at = generator.randrange(max(1, len(text) - options.file_size))
        (folder / f"{i % 20:02}").mkdir(exist_ok=True)
        (folder / f"{i % 20:02}" / f"{i}.txt").write_bytes(text[at : at + options.file_size])
    if options.large:
        with open(folder / "large.txt", "wb") as file:
            left = options.large
            for part in islice(cycle([text]), 1 + left // len(text)):
                left -= file.write(part[:left])
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def on_cluster(folder: Path, out: Path, options: argparse.Namespace, workers: int, *, kill: bool = False) -> None:
    """Compress on a local cluster; one worker is killed after half of the small files."""
    from distributed import Client, LocalCluster

    killed: list[int] = []
    done: list[Outcome] = []
    settings = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**settings) as cluster, Client(cluster) as client:

        def progress(outcome: Outcome) -> None:
            done.append(outcome)
            if kill and not killed and len(done) > options.files // 2:
                busy = [worker for worker, tasks in client.processing().items() if tasks]
                killed.extend(client.run(os.getpid, workers=busy[:1]).values())
                os.kill(killed[0], signal.SIGKILL)

        settings = {"model": options.model[0], "frame_size": options.frame_size, "progress": progress}
        report = llmzip.cluster.compress_files(str(folder), str(out), client=client, **settings)
    print(f"  {report.line()}" + ("; one worker was killed" if killed else ""))


def engine(options: argparse.Namespace) -> None:
    """Print the seconds with and without a cluster, interleaved, and after a lost worker; compare all archives."""
    with tempfile.TemporaryDirectory() as name:
        folder, outs = Path(name) / "in", []
        size = make_files(folder, options.text.read_bytes(), options)
        print(f"{options.files} files of {options.file_size} bytes and one of {options.large}: {size} bytes in all")
        frames = ["--frame-size", str(options.frame_size)] if options.frame_size else []
        command = ["compress", "-r", folder, "-m", options.model[0], *frames, "-j", 2, "--output-dir"]
        kinds = {
            "-j 2": lambda out: llmzip_(*command, out),
            "2 workers": lambda out: on_cluster(folder, out, options, 2),
            "1 worker": lambda out: on_cluster(folder, out, options, 1),
            "2 workers, one killed": lambda out: on_cluster(folder, out, options, 2, kill=True),
        }
        for number in range(options.rounds):
            for kind in options.kind or kinds:
                outs.append(Path(name) / f"{number} {kind}")
                started = time.monotonic()
                kinds[kind](outs[-1])
                seconds = time.monotonic() - started
                print(f"{kind}: {seconds:.1f} s, {size / 1000 / seconds:.1f} KB/s", flush=True)
        for out in outs[1:]:
            subprocess.run(["diff", "-r", outs[0], out], check=True)
        print("the archives are the same")
        if options.test:
            started = time.monotonic()
            llmzip_("test", "-r", outs[0], "-j", 2, "--json")
            print(f"test: {time.monotonic() - started:.1f} s")


def simulated_batch(batch: list[Item], _: Work) -> list[Outcome]:
    """Wait as long as the files say, in milliseconds."""
    time.sleep(sum(item.size or 0 for item in batch) / 1000)
    return [Outcome(item.source, "done") for item in batch]


def scheduler(options: argparse.Namespace) -> None:
    """Print the share of the time that threads spend in simulated tasks."""
    from distributed import Client, LocalCluster

    llmzip.cluster.run.convert_batch = simulated_batch
    llmzip.cluster.run.per_minute = lambda _: 1  # one file in each batch
    for threads in options.threads:
        with (
            LocalCluster(n_workers=4, threads_per_worker=threads // 4, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            for seconds in options.seconds:
                count = max(threads, min(5 * threads, int(threads * options.limit / seconds)))
                files = [Item(str(i), None, int(1000 * seconds)) for i in range(count)]
                started = time.monotonic()
                done = sum(1 for _ in llmzip.cluster.outcomes(client, files, Work(kind="test")))
                wall = time.monotonic() - started
                share = done * seconds / threads / wall
                print(f"{threads} threads, {count} tasks of {seconds} s: {wall:.1f} s, ", end="")
                print(f"{done / wall:.0f} tasks/s, {share:.0%} of the time in tasks", flush=True)


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("speed", help="the speed of one thread")
    one.set_defaults(run=speed)
    one.add_argument("text", type=Path)
    one.add_argument("--size", type=int, default=1_000_000, help="bytes to compress")
    one.add_argument("-m", "--model", nargs="+", default=["none", "default"])
    one = commands.add_parser("engine", help="with and without a cluster")
    one.set_defaults(run=engine)
    one.add_argument("text", type=Path)
    one.add_argument("--files", type=int, default=2000)
    one.add_argument("--file-size", type=int, default=5000)
    one.add_argument("--large", type=int, default=0, help="bytes of a large file")
    one.add_argument("--frame-size", type=int)
    one.add_argument("--rounds", type=int, default=2)
    one.add_argument("--kind", nargs="+", help="only these of the runs")
    one.add_argument("--test", action="store_true", help="verify the archives, too")
    one.add_argument("-m", "--model", nargs=1, default=["none"])
    one = commands.add_parser("scheduler", help="simulated tasks")
    one.set_defaults(run=scheduler)
    one.add_argument("--threads", type=int, nargs="+", default=[100, 1000])
    one.add_argument("--seconds", type=float, nargs="+", default=[0.1, 1, 10])
    one.add_argument("--limit", type=float, default=60, help="seconds of ideal time for each measurement, at most")
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
