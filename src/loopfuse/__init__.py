"""loopfuse: TCP between two programs on one host, at the speed of shared memory."""

from loopfuse._version import __version__

__all__ = ["__version__"]
