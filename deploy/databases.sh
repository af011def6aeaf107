#!/bin/sh
# Once, when PostgreSQL's volume is new: Prefect's own database, and a user for Grafana that reads.
set -eu
psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
  --set password="$DLQ_GRAFANA_PASSWORD" <<'SQL'
CREATE DATABASE prefect;
CREATE ROLE grafana LOGIN PASSWORD :'password';
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO grafana;
SQL
