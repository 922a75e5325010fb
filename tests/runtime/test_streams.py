"""What compiled libraries print does not mix with results."""

import os
import sys

from nowcast.runtime.streams import stdout_to_stderr


def test_what_compiled_libraries_print_goes_to_stderr(capfd):
    sys.stdout.write("result 1\n")
    with stdout_to_stderr():
        os.write(1, b"noise\n")
    print("result 2")
    out, err = capfd.readouterr()
    assert (out, err) == ("result 1\nresult 2\n", "noise\n")
