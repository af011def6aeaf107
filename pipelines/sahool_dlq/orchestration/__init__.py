"""What the flows share, and what the Prefect server is told of them; all that knows Prefect."""
