"""What can go wrong, in words for people: each message names the thing, shows the value, states the rule, gives the remedy."""


class StreamlstmError(Exception):
    """Any failure that a user can act on. The command line prints its text as one line and exits with `exit_code`."""

    exit_code = 1


class UsageError(StreamlstmError):
    """The command line, a function's arguments or the combination of files asks for something impossible."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration that does not fit the schema; the text names file, key and the nearest right key."""


class InputError(StreamlstmError):
    """Input that cannot be read at all (missing, empty, truncated, without the named columns)."""


class OutputError(StreamlstmError):
    """An output that cannot be written (no permission, disk full, unknown suffix)."""


class ModelError(StreamlstmError):
    """A model file that is damaged, or made for other features or another architecture."""


class StateError(StreamlstmError):
    """A snapshot that is damaged, or belongs to another model or configuration."""


class WorkerError(StreamlstmError):
    """A worker process that ended before its work was done."""


class DeviceError(StreamlstmError):
    """A GPU that is not there, cannot be used, has too little memory, or failed."""
