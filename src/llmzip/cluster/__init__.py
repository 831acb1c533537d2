"""Many files, and the frames of large ones, on a dask cluster; needs the extra `cluster`.

A task is idempotent: its output gets its name when it is complete, and stays if it is there and current. So a task
whose worker is lost is done again elsewhere, and a run that is cut off goes on where it was. The scheduler never has
more than a few tasks for each thread; a task is a batch of files for about a minute, or a frame of a large file.
"""

from llmzip.cluster.files import compress_file, compress_files, connected, decompress_files
from llmzip.cluster.run import outcomes

__all__ = ("compress_file", "compress_files", "connected", "decompress_files", "outcomes")
