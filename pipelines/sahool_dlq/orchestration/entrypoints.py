"""The flows of prefect.yaml, which are files and not modules of the package."""

from typing import Any

import yaml
from prefect import Flow
from prefect.flows import load_flow_from_entrypoint

from sahool_dlq.embedded.worker import deployments_folder

__all__ = ["load_flows"]


def load_flows() -> dict[str, Flow[..., Any]]:
    """Every deployed flow, by its name."""
    folder = deployments_folder()
    deployments = yaml.safe_load((folder / "prefect.yaml").read_text())["deployments"]
    entrypoints = dict.fromkeys(deployment["entrypoint"] for deployment in deployments)
    flows: dict[str, Flow[..., Any]] = {}
    for entrypoint in entrypoints:
        flow: Flow[..., Any] = load_flow_from_entrypoint(str(folder / entrypoint))
        flows[flow.name] = flow
    return flows
