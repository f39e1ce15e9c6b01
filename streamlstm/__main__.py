"""`streamlstm` and `python -m streamlstm` are the command line."""

import sys

from streamlstm.errors import ConfigError


def main() -> None:
    """Runs a command and exits; exits with 2, after one line, where STREAMLSTM_CPU lets nothing be compiled."""
    try:
        from streamlstm.cli.app import main as run
    except ConfigError as error:
        print(f"streamlstm: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    run()


if __name__ == "__main__":
    main()
