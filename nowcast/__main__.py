"""`python -m nowcast` is `nowcast`."""

from nowcast.cli import main

main()
