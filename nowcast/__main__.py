"""Run the command line: `python -m nowcast`, also what torchrun starts in several processes."""

import multiprocessing
import os
import sys

from nowcast.cli import main

if __name__ == "__main__":
    try:
        main()
    except SystemExit as end:
        if int(os.environ.get("WORLD_SIZE", "1")) == 1 or multiprocessing.parent_process():
            raise
        # Several processes end here, without torch's teardown: at times it aborts one of them ("terminate called without an
        # active exception") after everything is written, and torchrun then reports or repeats a run that was complete.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code)
