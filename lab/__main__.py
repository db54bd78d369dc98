"""`python -m lab` is `omnimargin`."""

from lab.cli import main

main()
