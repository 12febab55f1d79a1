"""`python -m ragline` is `ragline`."""

from ragline.cli import main

main()
