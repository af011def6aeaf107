# Sourced by the scripts beside it: a temporary folder, an environment with pinned packages, a verdict.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export PYTHONPATH=${BASH_SOURCE[0]%/*}  # serving.py

# install PACKAGE==VERSION…: wheels, into an environment of its own.
install() {
  python3 -m venv "$folder/venv"
  "$folder/venv/bin/pip" install --quiet --only-binary :all: "$@"
}

# try WHAT <<'PYTHON': run that program with the folder as its argument; 0 says that it is as described.
try() {
  cat >"$folder/try.py"
  if "$folder/venv/bin/python" "$folder/try.py" "$folder"; then
    echo "As described: $1."
  else
    echo "This has changed: see the output above." >&2
    exit 1
  fi
}
