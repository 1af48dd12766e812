# For the scripts beside it: `prepare_venv FILE` makes .venv hold what a lock file says, and Trunkline itself.
# It works again only where the lock file or pyproject.toml has changed since.

prepare_venv() {
  local lock=$1 stamp wanted
  if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "$0: it needs Python 3.11 or newer as python3; this is $(python3 --version 2>&1)" >&2
    return 1
  fi
  stamp=.venv/installed-$(basename "$lock" .txt)
  wanted=$({ pwd; cat "$lock" pyproject.toml; } | sha256sum) # a copied folder's .venv still means the old one
  if [ -x .venv/bin/trunkline ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    return 0
  fi
  # One without pip is what is left where python3-venv was missing, or Ctrl-C came in between.
  if ! { .venv/bin/python -m pip --version >/dev/null 2>&1 || python3 -m venv --clear .venv; }; then
    echo "$0: python3 can make no virtual environment; on Debian or Ubuntu: apt install python3-venv" >&2
    return 1
  fi
  echo "installing what $lock names into .venv ..." >&2
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement "$lock" || return 1
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable . || return 1
  printf '%s\n' "$wanted" >"$stamp"
}
