# Sourced by the scripts beside it, after debian.sh: packages of a Debian suite in a directory. They are fetched by apt
# with a state of its own from the mirror that this system uses ($CPUMAP_DEBIAN_MIRROR overrides it; signatures are
# checked), and unpacked, not installed: no root needed, and no maintainer script runs.
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# One at a time fills a directory.
lock() {
  mkdir -p "$1"
  exec {lock_file}> "$1/.lock"
  flock "$lock_file"
}

mirror() {
  echo "${CPUMAP_DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    grep -v security | grep -m1 '/debian/\?$' || true)}"
}

# True when there is somewhere to fetch from, and a key to check it by; else says for what it is missing.
can_unpack() {
  if ! command -v apt-get >/dev/null; then
    say "$1: not fetched, this system has no apt"
  elif [ -z "$(mirror)" ]; then
    say "$1: not fetched, apt has no Debian mirror configured (CPUMAP_DEBIAN_MIRROR can name one)"
  elif [ ! -e $keyring ]; then
    say "$1: not fetched, there is no $keyring to check it by (package debian-archive-keyring)"
  else
    return 0
  fi
  return 1
}

# Fetches the packages and all they depend on from the last of the suites, and what that lacks from the ones before.
#   fetch_packages STATE "SUITE..." PACKAGE...
fetch_packages() {
  local state=$1 suites=$2 suite
  shift 2
  mkdir -p "$state"/{lists,archives}/partial
  : > "$state/status"
  for suite in $suites; do
    echo "deb [arch=amd64 signed-by=$keyring] $(mirror) $suite main"
  done > "$state/sources.list"
  # A snapshot or a mirror that lags has an InRelease past its date: that is no reason to have no sid.
  local apt=(apt-get -qq -o "Dir::State=$state" -o "Dir::State::status=$state/status" -o "Dir::Cache=$state"
    -o "Dir::Etc::sourcelist=$state/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null
    -o "APT::Default-Release=${suites##* }" -o APT::Architecture=amd64 -o APT::Architectures=amd64
    -o APT::Sandbox::User= -o Acquire::Languages=none -o Acquire::Retries=3 -o Acquire::Check-Valid-Until=false)
  "${apt[@]}" update >&2 &&
    "${apt[@]}" install --yes --no-install-recommends --download-only "$@" >&2
}

# What else is to be done to a directory before it gets its name. A script may have its own.
finish() { :; }

# Puts the packages into a directory, in place of an older one only when all of them are there.
#   unpack ROOT "SUITE..." PACKAGE...
unpack() {
  local root=$1
  rm -rf "$root.part"
  if ! fill "$root.part" "${@:2}"; then
    say "$root: not unpacked"
    rm -rf "$root.part"
    return 1
  fi
  rm -rf "$root.old"
  [ ! -e "$root" ] || mv "$root" "$root.old"
  mv "$root.part" "$root"
  rm -rf "$root.old"
}

fill() {
  local part=$1 package
  shift
  # Debian's merged /usr: what one release has in /lib, the next has in /usr/lib.
  mkdir -p "$part/usr"/{bin,sbin,lib,lib64} || return
  for package in bin sbin lib lib64; do ln -s "usr/$package" "$part/$package" || return; done
  fetch_packages "$part/apt" "$@" || return
  for package in "$part"/apt/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" |
      tar --extract --directory "$part" --keep-directory-symlink --exclude=./usr/share/{doc,man,locale}/'*' || return
  done
  rm -r "$part/apt" && finish "$part" && contents "$@" > "$part/.contents"
}

# What names the contents of a directory: other packages, or a script that makes something else of them ($layout).
contents() { printf '%s\n' "layout ${layout:-1}" "$@"; }

# True when the directory already has what `unpack` with these arguments would put there.
is_unpacked() {
  local root=$1
  shift
  [ "$(cat "$root/.contents" 2>/dev/null)" = "$(contents "$@")" ]
}

say_missing() { [ $# = 0 ] || say "MISSING: $* (a mirror may have a newer one in its place now)"; }
