# Sourced by the scripts beside it: what they may do to a Debian or Ubuntu machine.

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# Runs a command as root, never asking for a password.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

can_be_root() { as_root true 2>/dev/null; }

# Installs those of the packages that are not installed yet. Fails when it may not, or when this is no Debian.
apt_install() {
  local package missing=()
  for package; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if ! command -v apt-get >/dev/null || ! can_be_root; then
    say "not installed, and not installable without apt and root or sudo: ${missing[*]}"
    return 1
  fi
  say "installing ${missing[*]}"
  local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300) log
  log=$(mktemp)
  if as_root "${apt[@]}" update >"$log" 2>&1 &&
    as_root "${apt[@]}" install --yes --no-install-recommends \
      -o 'Dpkg::Options::=--path-include=/usr/share/doc/libvirt-doc/*' "${missing[@]}" >>"$log" 2>&1; then
    rm "$log"
  else
    cat "$log" >&2
    rm "$log"
    return 1
  fi
}

# True when this Python is new enough for cpumap and can import the modules named.
python_has() {
  local python=$1 modules=$2
  "$python" -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null &&
    "$python" -c "import $modules" 2>/dev/null
}
