"""Blocks for people's own flows: `DlqPlatform.load("prod").redrive(group="1f0c", reason="…")`.

Prefect imports this when it looks for block types, so the jobs are imported when they are called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect.blocks.core import Block
from prefect.context import FlowRunContext
from prefect.utilities.asyncutils import run_coro_as_sync
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import PydanticBaseSettingsSource

from sahool_dlq.errors import SettingsError
from sahool_dlq.settings import Settings

if TYPE_CHECKING:
    import polars as pl

    from sahool_dlq.drain.run import DrainReport
    from sahool_dlq.jobs.status import PlatformStatus
    from sahool_dlq.redrive.choose.selection import Selection
    from sahool_dlq.redrive.preview import Preview
    from sahool_dlq.redrive.publish.ramp import RedriveReport

__all__ = ["DlqPlatform", "NatsConnection"]


class NatsConnection(Block):
    """How to connect to NATS: the settings `DLQ_NATS_…`. Files are those of the worker."""

    _block_type_name = "NATS Connection"
    _block_type_slug = "nats-connection"
    _description = "Addresses and login of NATS servers, for the platform sahool-dlq."

    url: SecretStr | None = Field(None, description="comma-separated server addresses")
    context: str | None = Field(None, description="name of a context of the `nats` command")
    creds: str | None = Field(None, description="NATS credentials file")
    nkey: str | None = Field(None, description="file with the seed of a user's NKey")
    user_jwt: SecretStr | None = Field(None, description="a user's JWT; it also needs the seed")
    user_seed: SecretStr | None = Field(None, description="the seed itself, instead of a file")
    user: str | None = Field(None, description="user name, if no address contains one")
    password: SecretStr | None = Field(None, description="the user's password")
    token: SecretStr | None = Field(None, description="token, instead of a user and password")
    ca: str | None = Field(None, description="PEM file of the CAs of the servers")
    cert: str | None = Field(None, description="PEM file of the client certificate")
    key: str | None = Field(None, description="PEM file of the client certificate's key")
    tls_first: bool = Field(False, description="set it for servers with handshake_first")
    inbox_prefix: str | None = Field(None, description="prefix of reply subjects")
    jetstream_domain: str | None = Field(None, description="JetStream domain of the log")
    jetstream_api_prefix: str | None = Field(None, description="prefix of the JetStream API")

    def as_settings(self) -> dict[str, Any]:
        """The given fields, by the names of `Settings`."""
        given = {name: getattr(self, name) for name in type(self).own_fields()}
        return {f"nats_{name}": value for name, value in given.items() if value not in (None, "")}

    @classmethod
    def own_fields(cls) -> list[str]:
        """The fields of this block, without those of every block."""
        return [name for name in cls.model_fields if name not in Block.model_fields]


class DlqPlatform(Block):
    """A platform of sahool-dlq, and what a flow does with it.

    Each method that changes something has a form for async flows, with an `a` before its name.
    The worker's `DLQ_*` variables do not count.
    """

    _block_type_name = "DLQ Platform"
    _block_type_slug = "dlq-platform"
    _description = "Dead letters of NATS JetStream: look at them, drain them, redrive them."

    nats: NatsConnection = Field(default_factory=NatsConnection, description="the log's servers")
    postgres_dsn: SecretStr = Field(description="PostgreSQL connection string")
    lake_uri: str = Field(description="folder or s3://… of the lake")
    options: dict[str, Any] = Field(
        {}, description="other settings by name, in lower case: redrive_cap, subject_prefix, …"
    )

    def settings(self) -> Settings:
        """The settings for jobs; raises SettingsError for one that is not valid or unknown."""
        if unknown := sorted(set(self.options) - set(Settings.model_fields)):
            raise SettingsError(f"There is no setting {unknown[0]!r}: see docs/settings.md.")
        given = {
            **self.options,
            **self.nats.as_settings(),
            "postgres_dsn": self.postgres_dsn,
            "lake_uri": self.lake_uri,
        }
        try:
            return _Given(**given)
        except ValidationError as error:
            first = error.errors()[0]
            raise SettingsError(f"{first['loc'][0]} is not valid: {first['msg']}.") from error

    async def aredrive(
        self, *, reason: str, requested_by: str | None = None, **conditions: Any
    ) -> RedriveReport | None:
        """Publish failures again to the consumers that failed; None if there is nothing to do.

        Conditions are `group` and the other fields of `Selection`: `service`, `error_types`,
        `since="24h"`, `where`, `failure_ids`, `limit`, … Each group ramps 1, 10, all. More than
        `redrive_approval_count` wait for approval: then the report's state is awaiting_approval.
        """
        from sahool_dlq.jobs.redrive import redrive

        settings = self.settings()
        return await redrive(
            settings,
            _selected(settings, conditions),
            trigger="manual",
            requested_by=requested_by or _this_flow(),
            reason=reason,
            own_copy=False,
        )

    def redrive(self, **given: Any) -> RedriveReport | None:
        """See `aredrive`."""
        return run_coro_as_sync(self.aredrive(**given))

    async def adry_run(self, **conditions: Any) -> Preview:
        """What a redrive with these conditions would publish; changes nothing."""
        from sahool_dlq.jobs.redrive import preview_redrive

        settings = self.settings()
        return await preview_redrive(settings, _selected(settings, conditions))

    def dry_run(self, **conditions: Any) -> Preview:
        """See `adry_run`."""
        return run_coro_as_sync(self.adry_run(**conditions))

    async def adrain(self) -> DrainReport:
        """Copy new dead letters into the lake and PostgreSQL, each exactly once."""
        from sahool_dlq.jobs.drain import drain_log

        return await drain_log(self.settings())

    def drain(self) -> DrainReport:
        """See `adrain`."""
        return run_coro_as_sync(self.adrain())

    async def astatus(self) -> PlatformStatus:
        """The state of stream, sinks, failures, redrives and gaps."""
        from sahool_dlq.jobs.status import platform_status

        return await platform_status(self.settings())

    def status(self) -> PlatformStatus:
        """See `astatus`."""
        return run_coro_as_sync(self.astatus())

    def query(self, statement: str, limit: int | None = None) -> pl.DataFrame:
        """The rows of one reading statement of SQL over the lake: `dlq sql`."""
        from sahool_dlq.jobs.lake_views import query

        return query(self.settings(), statement, limit)


class _Given(Settings):
    """Settings from arguments alone."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: Any,  # noqa: ARG003  (signature of pydantic-settings)
        init_settings: PydanticBaseSettingsSource,
        *_: PydanticBaseSettingsSource,
        **__: PydanticBaseSettingsSource,
    ) -> tuple[Any, ...]:
        """Neither the worker's environment nor servers that run in its folder."""
        return (init_settings,)


def _selected(settings: Settings, conditions: dict[str, Any]) -> Selection:
    """Raises SettingsError for a condition that there is not, and as `selected`."""
    from sahool_dlq.jobs.selecting import selected
    from sahool_dlq.redrive.choose.selection import CONDITIONS

    given = {("group_id" if name == "group" else name): v for name, v in conditions.items()}
    if unknown := sorted(set(given) - {*CONDITIONS, "limit"}):
        names = ", ".join(["group", *CONDITIONS, "limit"])
        raise SettingsError(f"There is no condition {unknown[0]!r}: give one of {names}.")
    return selected(settings, {n: tuple(v) if isinstance(v, list) else v for n, v in given.items()})


def _this_flow() -> str:
    """The name of the flow that runs, for the audit."""
    context = FlowRunContext.get()
    return f"flow {context.flow.name}" if context and context.flow else "a Prefect block"
