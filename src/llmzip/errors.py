"""Every error that llmzip raises for a reason a user can understand.

Those that gzip, bz2 and lzma raise as OSError or EOFError are that here, too: programs that read compressed files
catch them already.
"""


class LlmzipError(Exception):
    """The base of all errors of llmzip; the text is one line without the file's name."""


class FormatError(LlmzipError, OSError):
    """The data is not an llmzip archive, or is one that no llmzip wrote."""


class TruncatedError(LlmzipError, EOFError):
    """The archive ends before its last frame does."""


class ChecksumError(LlmzipError, OSError):
    """The content is not what was compressed."""


class SalvageError(LlmzipError):
    """Parts of a damaged archive are lost; the rest has been written."""


class ModelError(LlmzipError):
    """A model is missing, damaged, unknown, or not the one the archive needs."""


class ModelMismatchError(ModelError):
    """The model that was named, or is installed, is not the one the archive was made with."""


class HardwareError(LlmzipError):
    """The machine computes wrongly, or is set to compute inexactly."""


class LimitError(LlmzipError):
    """Decompressing takes more memory, or gives more content, than the caller allows."""


class FileError(LlmzipError):
    """A file is not one to read from or to write to; `filename` says which."""

    def __init__(self, filename: str, text: str):
        super().__init__(filename, text)
        self.filename, self.text = filename, text

    def __str__(self) -> str:
        return self.text
