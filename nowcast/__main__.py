"""Run the command line: the command `nowcast`, and `python -m nowcast`, also what torchrun starts in several processes."""

import multiprocessing
import os
import sys


def run() -> None:
    """Import and run the command line. Ctrl-C during the import, which can take a second from a cold disk, exits with 130."""
    try:
        from nowcast.cli import main
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        sys.exit(130)
    main()


if __name__ == "__main__":
    try:
        run()
    except SystemExit as end:
        if int(os.environ.get("WORLD_SIZE", "1")) == 1 or multiprocessing.parent_process():
            raise
        # Several processes end here, without torch's teardown: at times it aborts one of them ("terminate called without an
        # active exception") after everything is written, and torchrun then reports or repeats a run that was complete.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code)
