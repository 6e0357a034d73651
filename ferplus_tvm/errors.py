"""The errors that this package raises on purpose.

Every message is one sentence that says what went wrong, what was found, what was expected,
and what to do next::

    FerplusError
    ├── MissingExtraError          an optional part is not installed (message: the pip command)
    ├── DownloadError              a model file could not be fetched, or is not the promised one
    ├── ModelError                 the ONNX model cannot be compiled
    │   ├── ModelFileError         the bytes are not a whole ONNX model
    │   ├── ModelShapeError        an ONNX model, but not square faces in and scores out
    │   └── UnsupportedModelError  an operator, attribute or precision that is not supported
    ├── TuningLogError             tuning logs that are missing or damaged
    ├── DeviceError                a device to tune on that cannot be reached, or was lost
    ├── BenchError                 a measurement that cannot be made, or that failed its gate
    ├── TargetError                a target that does not exist or cannot be built for here
    ├── CompileError               the compiler could not produce a library
    │   ├── LinkerError            no C or C++ compiler was found, or linking failed
    │   ├── CudaCompilerError      no CUDA compiler was found, or it failed
    │   └── VerificationError      the library crashes, or its scores are off the reference
    ├── ArtifactError              a compiled library cannot be used
    │   ├── ArtifactFormatError    not a library of ours, stripped, or of a future format
    │   ├── ArtifactDamagedError   truncated or altered
    │   ├── NoDetectorError        a whole picture, and no face detector in the library
    │   ├── CpuFeatureError        this CPU lacks something that the library needs
    │   └── RuntimeLibraryError    libtvm_runtime is missing, or is another version
    ├── GpuError                   no GPU, no driver, another architecture, or no memory left on it
    ├── TemporaryFolderError       the folder for temporary files is full, or cannot be written to
    ├── EngineClosedError          the engine was closed before the call (also a RuntimeError)
    └── InputError                 an image, array or video that cannot be used (also a ValueError)
        └── VideoDamagedError      a video that breaks off, raised after all that could be read

A wrong argument that is a programming mistake (a misspelt option, a negative count) raises
``ValueError`` or ``TypeError`` as usual.
"""

from __future__ import annotations


class FerplusError(Exception):
    """Base of every error that this package raises on purpose."""


class MissingExtraError(FerplusError, ImportError):
    """An optional part of the package is not installed."""

    @classmethod
    def of(cls, what: str, extra: str) -> MissingExtraError:
        """Say that ``what`` needs ``extra``, with the exact pip command."""
        return cls(f"{what} needs an optional part: pip install 'ferplus_tvm[{extra}]'")


class DownloadError(FerplusError):
    """A model file could not be fetched, or is not the file that was promised."""


class ModelError(FerplusError):
    """The ONNX model cannot be compiled."""


class ModelFileError(ModelError):
    """The bytes are not a whole ONNX model."""


class ModelShapeError(ModelError):
    """An ONNX model, but not one that takes square faces and gives a score for each class."""


class UnsupportedModelError(ModelError):
    """The model holds an operator, an attribute or a precision that is not supported."""


class TuningLogError(FerplusError):
    """Tuning logs that are missing or damaged."""


class DeviceError(FerplusError):
    """A device to tune on that cannot be reached, or was lost."""


class BenchError(FerplusError):
    """A measurement that cannot be made, or one that is worse than its gate allows."""


class TargetError(FerplusError):
    """A target that does not exist, or that cannot be built for on this machine."""


class CompileError(FerplusError):
    """The compiler could not produce a library."""


class LinkerError(CompileError):
    """No C or C++ compiler was found, or linking failed."""


class CudaCompilerError(CompileError):
    """No CUDA compiler was found for a GPU target, or it failed."""


class VerificationError(CompileError):
    """The library crashes or hangs, or its scores are too far from the reference."""


class ArtifactError(FerplusError):
    """A compiled library cannot be used."""


class ArtifactFormatError(ArtifactError):
    """The file is not a library of ours, was stripped, or has a future format."""


class ArtifactDamagedError(ArtifactError):
    """The file is a library of ours, but it is truncated or altered."""


class NoDetectorError(ArtifactError):
    """A face detector is asked for that the library does not hold, or not for such sizes."""


class CpuFeatureError(ArtifactError):
    """The CPU lacks a feature, or is of another kind than the library was compiled for."""


class RuntimeLibraryError(ArtifactError):
    """``libtvm_runtime`` is missing, or is not the version that the library needs."""


class GpuError(FerplusError):
    """There is no GPU or no driver, it cannot run the library, or its memory is full."""


class TemporaryFolderError(FerplusError):
    """The folder for temporary files is full, or there is none that can be written to."""


class EngineClosedError(FerplusError, RuntimeError):
    """The engine was closed before the call."""


class InputError(FerplusError, ValueError):
    """An image, an array or a video that cannot be used."""


class VideoDamagedError(InputError):
    """A video is damaged: raised after every frame that could be read.

    Attributes
    ----------
    time
        Seconds of the video up to which it could be read.
    """

    def __init__(self, message: str, time: float) -> None:
        super().__init__(message)
        self.time = time

    def __reduce__(self) -> tuple[type[VideoDamagedError], tuple[str, float]]:
        return type(self), (str(self), self.time)


def last_line(error: BaseException) -> str:
    """Return the last line of an error's message, where TVM says what is wrong."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def one_line(error: Exception) -> str:
    """Give an error's message as part of a sentence."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
