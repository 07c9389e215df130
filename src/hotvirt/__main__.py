"""`python -m hotvirt` is the `hotvirt` command."""

from hotvirt.cli.main import main

main()
