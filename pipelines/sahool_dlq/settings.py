"""All settings of the platform, and the only reader of the environment (`DLQ_*`).

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

if TYPE_CHECKING:  # these imports are slow, and most verbs mask nothing
    from sahool_dlq.deadletter.decoding.decoders import Decoders
    from sahool_dlq.deadletter.ownership import Owners
    from sahool_dlq.deadletter.redaction.redactor import Redactor
    from sahool_dlq.deadletter.rules import Rules

ENDPOINTS_FILE = "endpoints.json"
_STORES = ("s3", "s3a", "gs", "az", "abfss")  # they refuse to write one log entry twice


class Settings(BaseSettings):
    """Server addresses, stream names and limits."""

    model_config = SettingsConfigDict(
        env_prefix="DLQ_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    home: Path = Field(Path(".dlq"), description="folder of the embedded servers and the lake")
    nats_url: SecretStr = Field(
        SecretStr("nats://127.0.0.1:4222"), description="comma-separated server addresses"
    )
    nats_context: str | None = Field(None, description="name of a context of the `nats` command")
    nats_creds: Path | None = Field(None, description="NATS credentials file")
    nats_nkey: Path | None = Field(None, description="file with the seed of a user's NKey")
    nats_user_jwt: SecretStr | None = Field(
        None, description="a user's JWT; it also needs the seed"
    )
    nats_user_seed: SecretStr | None = Field(None, description="the seed itself, instead of a file")
    nats_user: str | None = Field(None, description="user name, if no address contains one")
    nats_password: SecretStr | None = Field(None, description="the user's password")
    nats_token: SecretStr | None = Field(None, description="token, instead of a user and password")
    nats_ca: Path | None = Field(None, description="PEM file of the CAs of the servers")
    nats_cert: Path | None = Field(
        None, description="PEM file of the client certificate, if servers require one"
    )
    nats_key: Path | None = Field(None, description="PEM file of the client certificate's key")
    nats_tls_first: bool = Field(False, description="set it for servers with handshake_first")
    nats_inbox_prefix: str | None = Field(
        None, description="prefix of reply subjects; default _INBOX.<user>"
    )
    nats_jetstream_domain: str | None = Field(None, description="JetStream domain of the log")
    nats_jetstream_api_prefix: str | None = Field(
        None, description="prefix of the JetStream API, if another account exports it"
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
        {}, description="service names by consumer or stream/consumer; wildcards allowed"
    )
    bridge_headers: dict[ErrorKey, str] = Field(
        {"error_type": "Error-Type", "error_message": "Error-Message", "service": "Error-Service"},
        description="names of the headers in which an event reports its error",
    )

    drain_batch_messages: int = Field(
        6_000, ge=1, description="maximum number of messages in one commit"
    )
    drain_batch_bytes: int = Field(
        20 << 20, ge=1, description="maximum bytes of bodies in one commit"
    )
    drain_lock_seconds: float = Field(
        60, gt=0, description="how long to wait for another drain that makes no progress"
    )
    redaction_key: SecretStr | None = Field(
        None, description="key for hashes in masks: equal values get equal masks"
    )

    tokens_file: Path | None = Field(
        None, description="file of the tokens of `dlq serve`; default DLQ_HOME/tokens.json"
    )
    keep_payloads: bool = Field(False, description="also keep raw dead letters in failed_payloads")
    payload_days: float = Field(
        90, gt=0, description="days after which rows of failed_payloads are deleted"
    )
    rules_file: Path | None = Field(
        None,
        description="TOML file with your rules for redaction, groups, owners, decoding and imports",
    )
    schema_registry_url: SecretStr | None = Field(
        None, description="address of the schema registry for events in Avro"
    )

    lake_retention_days: int = Field(
        0, ge=0, description="days after which rows are removed from the lake; 0: never"
    )

    redrive_cap: int = Field(3, ge=1, description="failed redrives after which a case is parked")
    redrive_per_second: float = Field(50, gt=0, description="maximum redrives per second")
    redrive_timeout_seconds: float = Field(
        60, gt=0, description="time without an answer after which an outcome is unknown"
    )
    redrive_subjects: list[str] = Field(
        [], description="subjects a redrive may publish to; default: those of the event stream"
    )
    redrive_approval_count: int = Field(
        1_000, ge=0, description="size above which a manual batch waits for approval; 0: never"
    )
    redrive_budget_share: float = Field(
        0.2, ge=0, le=1, description="maximum share of redrives in what a service handles"
    )
    redrive_floor_per_second: float = Field(
        10, gt=0, description="redrives per second that every service may always get"
    )
    redrive_delay_seconds: float = Field(
        30, ge=0, description="minimum age of a failure before the schedule redrives it"
    )
    redrive_own_copies: bool = False  # the schedule may publish the dead letter's copy of an event
    redrive_max_age_seconds: float | None = Field(
        None,
        gt=0,
        description="maximum age of an event that a redrive publishes; default: no limit",
    )
    transient_error_types: list[str] = Field(
        list(TRANSIENT), description="error types that redrive-transient redrives"
    )

    alert_urls: list[SecretStr] = Field(
        [], description="where alerts are sent: Apprise URLs or incident services"
    )
    alert_rules_file: Path | None = Field(
        None, description="TOML file with your thresholds and routes"
    )
    alert_cooldown_seconds: float = Field(
        600, gt=0, description="minimum time between two alerts about one cause"
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
        """How to connect to NATS. If `dlq up` runs the servers, other settings are ignored. Raises
        SettingsError if a setting is not valid.
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
        """The names of the streams."""
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
        """The rules, read from the file at each access; raises SettingsError if it is not valid."""
        from sahool_dlq.deadletter.rules import Rules, read_rules

        if self.rules_file is None:
            return Rules()
        try:
            return read_rules(self.rules_file.read_text())
        except (OSError, ValueError) as error:
            raise self._rules_error(error) from error

    def redactor(self, rules: "Rules") -> "Redactor":
        """The redactor for these rules, with the key for hashes in masks."""
        from sahool_dlq.deadletter.redaction.redactor import Redactor

        key = self.redaction_key
        return Redactor(rules.redaction, key.get_secret_value().encode() if key else None)

    def decoders(self, rules: "Rules") -> "Decoders":
        """The decoders of these rules; raises SettingsError if a rule cannot be used."""
        from sahool_dlq.stores.schema_registry import decoders_of

        folder = (self.rules_file or Path()).parent
        try:
            return decoders_of(rules.decoding, folder, self.schema_registry_url)
        except (OSError, ValueError) as error:
            raise self._rules_error(error) from error

    def owners(self, rules: "Rules") -> "Owners":
        """The owners by these rules; raises SettingsError if their file cannot be used."""
        from sahool_dlq.deadletter.ownership import Owners

        file, folder = rules.ownership.codeowners, (self.rules_file or Path()).parent
        try:
            text = (folder / file).read_text() if file else ""
            return Owners(rules.ownership, text, rules.grouping.frames)
        except (OSError, ValueError) as error:
            raise self._rules_error(error) from error

    def _rules_error(self, error: OSError | ValueError) -> SettingsError:
        reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error
        return SettingsError(f"The rules in {self.rules_file} cannot be used: {reason}.")

    def masked(self, said: str) -> str:
        """A text that a person wrote, such as a reason, masked like all other texts."""
        return self.redactor(self.rules).redact_text(said)

    @property
    def lake(self) -> str:
        """The lake's folder or object-store URI."""
        return self.lake_uri or str((self.home / "lake").absolute())

    def lake_kept_since(self, now: datetime) -> datetime | None:
        """Older rows may be removed from the lake; None: all are kept."""
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
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  (as above)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  (as above)
    ) -> tuple[Any, ...]:
        """Arguments, environment, then the running embedded servers."""

        typed, environment = init_settings(), env_settings()
        if "nats_context" in typed:  # from the command line: ignore another cluster's settings
            environment = {k: v for k, v in environment.items() if not k.startswith("nats_")}
        servers = endpoints(typed.get("home") or environment.get("home") or ".dlq")
        if "nats_context" in typed or "nats_context" in environment:
            servers = {k: v for k, v in servers.items() if not k.startswith("nats_")}
        return (init_settings, lambda: environment, lambda: servers)


def _usual_dsn(environ: Mapping[str, str]) -> SecretStr:
    """Empty, so that libpq reads its own variables, if these name a server; else the default."""
    is_named = any(environ.get(name) for name in ("PGHOST", "PGHOSTADDR", "PGSERVICE"))
    return SecretStr("" if is_named else "postgresql://127.0.0.1:5432/dlq")


def endpoints(home: Path | str) -> dict[str, Any]:
    """The addresses of the servers that `dlq up` runs in `home`; empty if it does not run."""
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
    """Whether the user set this, by a flag or the environment."""
    value = getattr(settings, name)
    shown = value.get_secret_value() if isinstance(value, SecretStr) else value
    return name in settings.model_fields_set and endpoints(settings.home).get(name) != shown


def load_settings(**overrides: Any) -> Settings:
    """The effective settings. `overrides` that are None are ignored. Raises SettingsError that
    names the first setting that is not valid.
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
    """The settings of the NATS connection, as text by name, secrets included."""
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
