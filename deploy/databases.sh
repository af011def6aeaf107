#!/bin/sh
# Runs once, when PostgreSQL's volume is new. Creates Prefect's own database, and users for workers and
# Grafana. Migration 0011 grants rights to their roles.
set -eu
psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
  --set grafana="$DLQ_GRAFANA_PASSWORD" --set worker="$DLQ_WORKER_PASSWORD" <<'SQL'
CREATE DATABASE prefect;
CREATE ROLE dlq_redriver NOLOGIN;
CREATE ROLE dlq_alerts NOLOGIN;
CREATE ROLE dlq_payloads NOLOGIN;
CREATE ROLE dlq_analyst NOLOGIN;
CREATE ROLE worker LOGIN PASSWORD :'worker' IN ROLE dlq_redriver, dlq_alerts, dlq_payloads;
CREATE ROLE grafana LOGIN PASSWORD :'grafana' IN ROLE dlq_analyst;
ALTER ROLE worker SET search_path = pg_catalog, dlq, pg_temp;
ALTER ROLE grafana SET search_path = pg_catalog, dlq, pg_temp;
SQL
