"""`python -m cowbird` is the `cowbird` command."""

from cowbird.cli import main

main()
