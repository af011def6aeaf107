"""Every setting of the platform, and the only reader of the environment (`DLQ_*`).

A value comes from, in this order: an argument, the environment, `endpoints.json` in `DLQ_HOME`
(which `dlq up` writes while its servers run), the default.
"""

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from sahool_dlq.deadletter.error_families import TRANSIENT
from sahool_dlq.deadletter.record import ErrorKey
from sahool_dlq.deadletter.subjects import Subjects
from sahool_dlq.errors import SettingsError
from sahool_dlq.jetstream.access import COMPLETE, Access, completed
from sahool_dlq.jetstream.address import split_servers
from sahool_dlq.jetstream.contexts import FIELDS
from sahool_dlq.jetstream.stream_names import StreamNames

if TYPE_CHECKING:  # what masks loads much, and most verbs mask nothing
    from sahool_dlq.deadletter.redaction.redactor import Redactor
    from sahool_dlq.deadletter.rules import Rules

ENDPOINTS_FILE = "endpoints.json"
_STORES = ("s3", "s3a", "gs", "az", "abfss")  # where two cannot both put the same log entry


class Settings(BaseSettings):
    """Where the servers are, what the streams are called, how far the work may go."""

    model_config = SettingsConfigDict(
        env_prefix="DLQ_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    home: Path = Field(Path(".dlq"), description="folder of the embedded servers and the lake")
    nats_url: SecretStr = Field(
        SecretStr("nats://127.0.0.1:4222"), description="comma-separated server addresses"
    )
    nats_context: str | None = Field(None, description="context of the `nats` command")
    nats_creds: Path | None = Field(None, description="NATS credentials file")
    nats_nkey: Path | None = Field(None, description="file with the seed of a user's NKey")
    nats_user_jwt: SecretStr | None = Field(None, description="a user's JWT; with its seed")
    nats_user_seed: SecretStr | None = Field(None, description="a seed, instead of the file")
    nats_user: str | None = Field(None, description="user, where no address says one")
    nats_password: SecretStr | None = Field(None, description="the user's password")
    nats_token: SecretStr | None = Field(None, description="token, instead of a user")
    nats_ca: Path | None = Field(None, description="authorities of the servers' certificates")
    nats_cert: Path | None = Field(None, description="our certificate, for servers that want one")
    nats_key: Path | None = Field(None, description="the key of our certificate")
    nats_tls_first: bool = Field(False, description="for servers with handshake_first")
    nats_inbox_prefix: str | None = Field(None, description="default _INBOX.<user>")
    nats_jetstream_domain: str | None = Field(None, description="JetStream domain of the log")
    nats_jetstream_api_prefix: str | None = Field(
        None, description="prefix of a JetStream API that another account exports"
    )
    postgres_dsn: SecretStr = Field(
        default_factory=lambda: _usual_dsn(os.environ), description="PostgreSQL connection string"
    )
    lake_uri: str = Field(
        "", description="folder or s3://… of the Delta tables; default DLQ_HOME/lake"
    )

    subject_prefix: str = Field("sahool", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    events_stream: str = "SAHOOL_EVENTS"
    dlq_stream: str = "SAHOOL_DLQ"
    totals_stream: str = "SAHOOL_TOTALS"
    attempts_stream: str = "SAHOOL_ATTEMPTS"
    advisory_stream: str = "SAHOOL_ADVISORIES"
    ack_stream: str = "SAHOOL_ACKS"
    bridge_services: dict[str, str] = Field(
        {}, description="services by consumer or stream/consumer, with wildcards"
    )
    bridge_headers: dict[ErrorKey, str] = Field(
        {"error_type": "Error-Type", "error_message": "Error-Message", "service": "Error-Service"},
        description="headers by which an event says how it failed",
    )

    drain_batch_messages: int = Field(6_000, ge=1, description="most messages in one commit")
    drain_batch_bytes: int = Field(20 << 20, ge=1, description="most body bytes in one commit")
    drain_lock_seconds: float = Field(60, gt=0, description="how long to wait for another drain")
    redaction_key: SecretStr | None = Field(None, description="key of the masks' stable hashes")

    keep_payloads: bool = Field(False, description="keep raw dead letters in failed_payloads too")
    payload_days: float = Field(90, gt=0, description="after which failed_payloads forgets")
    rules_file: Path | None = Field(None, description="TOML file of redaction and grouping rules")

    lake_retention_days: int = Field(
        0, ge=0, description="days after which the lake forgets; 0 keeps everything"
    )

    redrive_cap: int = Field(3, ge=1, description="failed redrives after which a case is parked")
    redrive_per_second: float = Field(50, gt=0, description="most redrives a second")
    redrive_timeout_seconds: float = Field(
        60, gt=0, description="silence after which an outcome is unknown"
    )
    redrive_subjects: list[str] = Field(
        [], description="filters of subjects a redrive may publish to; default the event streams'"
    )
    redrive_approval_count: int = Field(
        1_000, ge=0, description="redrives by hand above which a batch waits for approval; 0: never"
    )
    redrive_budget_share: float = Field(
        0.2, ge=0, le=1, description="most redrives of a service, of what it handles"
    )
    redrive_floor_per_second: float = Field(
        10, gt=0, description="redrives a second of a service that may always be"
    )
    redrive_delay_seconds: float = Field(
        30, ge=0, description="least rest of a failure before the schedule redrives it"
    )
    redrive_own_copies: bool = False  # the schedule publishes what only the dead letter still has
    redrive_max_age_seconds: float | None = Field(
        None, gt=0, description="age of an event from which no redrive publishes it; default any"
    )
    transient_error_types: list[str] = Field(
        list(TRANSIENT), description="what redrive-transient takes"
    )

    alert_urls: list[SecretStr] = Field([], description="channels: of Apprise, or of incidents")
    alert_rules_file: Path | None = Field(None, description="TOML file that changes alert rules")
    alert_cooldown_seconds: float = Field(
        600, gt=0, description="between two alerts about one group of failures"
    )

    @field_validator("lake_uri")
    @classmethod
    def _is_known_store(cls, uri: str) -> str:
        scheme, separator, _ = uri.removeprefix("file://").partition("://")
        if separator and scheme not in _STORES:
            stores = ", ".join(f"{store}://" for store in _STORES)
            raise ValueError(f"it must be a folder or begin with {stores}, not with {scheme}://")
        return uri.removeprefix("file://")

    @property
    def access(self) -> Access:
        """How to connect to NATS; raises SettingsError where it is not valid.

        Where `dlq up` runs the servers, nothing else says how.
        """
        given: dict[str, Any] = {
            field: str(value) if isinstance(value := getattr(self, f"nats_{key}"), Path) else value
            for key, field in FIELDS.items()
            if key != "url" and f"nats_{key}" in self.model_fields_set
        }
        if "nats_url" in self.model_fields_set:
            given["servers"] = split_servers(self.nats_url)
        is_running = "servers" in given and not is_given(self, "nats_url")
        given["context"] = self.nats_context
        found = completed(given, {} if is_running else os.environ)
        found.setdefault("servers", split_servers(self.nats_url))
        return Access.model_validate(found, context=COMPLETE)

    @property
    def subjects(self) -> Subjects:
        """The subjects below the prefix."""
        return Subjects(self.subject_prefix)

    @property
    def stream_names(self) -> StreamNames:
        """The streams and what they hold."""
        return StreamNames(
            self.events_stream,
            self.dlq_stream,
            self.totals_stream,
            self.subjects,
            self.advisory_stream,
            self.attempts_stream,
            self.ack_stream,
        )

    @property
    def bridge_durable(self) -> str:
        """The bridge's consumer on the stream of advisories."""
        return f"bridge-{self.subject_prefix}"

    @property
    def rules(self) -> "Rules":
        """What the rules file says now; raises SettingsError where it is not valid."""
        from sahool_dlq.deadletter.rules import Rules, read_rules

        if self.rules_file is None:
            return Rules()
        try:
            return read_rules(self.rules_file.read_text())
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise SettingsError(
                f"The rules in {self.rules_file} cannot be used: {reason}."
            ) from error

    def redactor(self, rules: "Rules") -> "Redactor":
        """What masks by these rules, with the key of the masks' hashes."""
        from sahool_dlq.deadletter.redaction.redactor import Redactor

        key = self.redaction_key
        return Redactor(rules.redaction, key.get_secret_value().encode() if key else None)

    def masked(self, said: str) -> str:
        """What a person said, such as a reason, as it may be kept: masked like all else."""
        return self.redactor(self.rules).redact_text(said)

    @property
    def lake(self) -> str:
        """Where the lake is: a folder or an object store's URI."""
        return self.lake_uri or str((self.home / "lake").absolute())

    def lake_kept_since(self, now: datetime) -> datetime | None:
        """What is older, the lake may forget; None where it keeps everything."""
        if not self.lake_retention_days:
            return None
        midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return midnight - timedelta(days=self.lake_retention_days)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  (signature of pydantic-settings)
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[Any, ...]:
        """Arguments, environment, then the running embedded servers."""

        typed, environment = init_settings(), env_settings()
        if "nats_context" in typed:  # one that is typed is not mixed with another cluster's
            environment = {k: v for k, v in environment.items() if not k.startswith("nats_")}
        servers = endpoints(typed.get("home") or environment.get("home") or ".dlq")
        if "nats_context" in typed or "nats_context" in environment:
            servers = {k: v for k, v in servers.items() if not k.startswith("nats_")}
        return (init_settings, lambda: environment, lambda: servers)


def _usual_dsn(environ: Mapping[str, str]) -> SecretStr:
    """All that libpq's own variables say, where they name a server."""
    is_named = any(environ.get(name) for name in ("PGHOST", "PGHOSTADDR", "PGSERVICE"))
    return SecretStr("" if is_named else "postgresql://127.0.0.1:5432/dlq")


def endpoints(home: Path | str) -> dict[str, Any]:
    """Where the servers are that `dlq up` runs below `home`; empty where it does not run."""
    file = Path(home) / ENDPOINTS_FILE
    if not file.is_file():
        return {}
    try:
        return dict(json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise SettingsError(
            f"{file} cannot be read ({error}): delete it, `dlq up` creates it again."
        ) from error


def is_given(settings: Settings, name: str) -> bool:
    """Whether a person set this, by a flag or the environment."""
    value = getattr(settings, name)
    shown = value.get_secret_value() if isinstance(value, SecretStr) else value
    return name in settings.model_fields_set and endpoints(settings.home).get(name) != shown


def load_settings(**overrides: Any) -> Settings:
    """The settings in force; `overrides` that are None count as not given.

    Raises SettingsError naming the first setting that is not valid.
    """
    try:
        return Settings(**{key: value for key, value in overrides.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = "DLQ_" + "_".join(str(part) for part in first["loc"]).upper()
        reason = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{name} is not valid: {reason}.") from error
    except ValueError as error:
        raise SettingsError(f"A DLQ_* setting cannot be read: {error}.") from error


def environment_of(settings: Settings) -> dict[str, str]:
    """The environment in which a child process sees the same servers and lake."""
    return {
        **os.environ,
        **{f"DLQ_{name.upper()}": value for name, value in nats_settings(settings).items()},
        "DLQ_HOME": str(settings.home.absolute()),
        "DLQ_POSTGRES_DSN": settings.postgres_dsn.get_secret_value(),
        "DLQ_LAKE_URI": settings.lake,
        **{
            name: str(file.absolute())
            for name, file in (
                ("DLQ_RULES_FILE", settings.rules_file),
                ("DLQ_ALERT_RULES_FILE", settings.alert_rules_file),
            )
            if file
        },
    }


def nats_settings(settings: Settings) -> dict[str, str]:
    """The settings by which NATS is reached, as text and by name; with their secrets."""
    given = {
        name: getattr(settings, name)
        for name in settings.model_fields_set
        if name.startswith("nats_") and getattr(settings, name) is not None
    }
    if not settings.nats_context:
        given.setdefault("nats_url", settings.nats_url)
    return {name: _as_text(value) for name, value in given.items()}


def _as_text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value.absolute() if isinstance(value, Path) else value)
