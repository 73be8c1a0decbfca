"""`python -m cowbird` is the `cowbird` command."""

from cowbird.cli.app import main

main()
