"""`python -m sahool_dlq.cli` is `dlq`."""

from sahool_dlq.cli import main

main()
