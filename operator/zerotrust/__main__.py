"""`python -m zerotrust`."""

from zerotrust.cli.main import main

main()
