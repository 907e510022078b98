"""`python -m rasura` is the same as the `rasura` command."""

from rasura.cli import main

main()
