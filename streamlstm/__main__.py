"""`python -m streamlstm` is the command line."""

from streamlstm.cli.app import main

main()
