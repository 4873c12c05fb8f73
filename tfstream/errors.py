"""The exceptions of tfstream, sorted by what the caller does next.

    TfstreamError
    ├── UsageError (ValueError)      exit code 2: change the call
    ├── DataError                    exit code 3: look at the data
    │   └── CorruptionError          exit code 3: a file is not what was written; `tfstream verify`
    names it
    ├── ResumeError                  exit code 4: what lies there belongs to something else
    ├── StorageError (OSError)       exit code 5: try again, or mend the disk or the network
    └── WorkerError                  exit code 6: a process that did the work died; call again

A message says what is wrong, where, and what to do. All of them pickle, since they cross Dask
workers.
"""


class TfstreamError(Exception):
    """Base of every exception that tfstream raises on purpose."""

    exit_code = 1
    """Exit code of the command line."""


class UsageError(TfstreamError, ValueError):
    """The call asks for something that cannot be; change the call."""

    exit_code = 2


class DataError(TfstreamError):
    """The data does not allow it; look at the data."""

    exit_code = 3


class CorruptionError(DataError):
    """A file is not what was written."""


class ResumeError(TfstreamError):
    """What lies in the folder belongs to something else."""

    exit_code = 4


class StorageError(TfstreamError, OSError):
    """A file could not be read or written."""

    exit_code = 5


class WorkerError(TfstreamError):
    """A process that did the work died, or the cluster went; call again, with less at once."""

    exit_code = 6
