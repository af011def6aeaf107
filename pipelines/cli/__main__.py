"""`python -m pipelines.cli` is `dlq`."""

from pipelines.cli import main

main()
