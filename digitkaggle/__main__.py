"""`python -m digitkaggle`: hands over to the command line."""

import atexit
import os
import sys

from .cli import main

if __name__ == "__main__":
    code = main()
    if "joblib" in sys.modules:  # whose processes are cleared up on the usual way out
        sys.exit(code)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)  # to take itself apart torch needs 0.4 s
