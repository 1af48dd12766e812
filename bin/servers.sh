# For bin/test: what the tests need and pip can't install. Each `need_*` ends with the thing there, or fails loudly.

install_package() {
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "bin/test: $1 is missing; install it (on Debian or Ubuntu, as root: apt-get install $1)" >&2
    return 1
  fi
  echo "installing Debian's package $1 ..." >&2
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1"; } >&2
}

# The console's tests drive a real browser.
need_chromium() {
  command -v chromium >/dev/null || install_package chromium || return 1
  command -v chromium >/dev/null || { echo "bin/test: there is still no chromium on the PATH" >&2; return 1; }
}

# The TLS tests make their own certificates.
need_openssl() {
  command -v openssl >/dev/null || install_package openssl || return 1
}
