"""`python -m simulator` is `flicker`."""

from simulator.cli import main

main()
