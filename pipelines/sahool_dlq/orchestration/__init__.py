"""The shared code of the flows, and the deployment to Prefect; the only code that uses Prefect."""
