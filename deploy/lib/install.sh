# Sourced by the scripts in deploy/: brings a bare Debian or Ubuntu machine to where the project can run.
# shellcheck shell=bash

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python=$project/.venv/bin/python

# libvirt-python is built against the machine's libvirt; RabbitMQ comes with its Erlang.
BASE_PACKAGES=(ca-certificates gcc libc6-dev libvirt-dev pkg-config rabbitmq-server)
# Real guests without a daemon: libvirt's QEMU driver loaded into the worker.
HYPERVISOR_PACKAGES=(libvirt-daemon-driver-qemu qemu-system-x86)
# Tests talk to daemons and a pooler of their own too, make certificates, and want a Postgres that can encrypt and psql.
TEST_PACKAGES=("${HYPERVISOR_PACKAGES[@]}" libvirt-daemon openssl pgbouncer postgresql)
# What Debian switches on for the next boot; the project runs its own.
declare -A SERVICES=(
    [rabbitmq-server]="rabbitmq-server.service epmd.socket epmd.service"
    [pgbouncer]=pgbouncer.service
    [postgresql]=postgresql.service
)

say() { printf '%s\n' "$*" >&2; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        say "This needs root or sudo: $*"
        return 1
    fi
}

is_installed() {
    [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Installs what is missing of the packages named, without starting or enabling any service of theirs.
ensure_packages() {
    local missing=() package
    for package in "$@"; do
        is_installed "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    say "Installing ${missing[*]}"
    local policy=/usr/sbin/policy-rc.d made_policy='' status=0 output
    output=$(mktemp)
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
        as_root chmod 755 $policy
        made_policy=yes
    fi
    {
        as_root apt-get update --quiet=2 -o DPkg::Lock::Timeout=300 &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 --no-install-recommends \
                -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "${missing[@]}"
    } >"$output" 2>&1 || status=$?
    [ $status -eq 0 ] || tail -n 20 "$output" >&2
    rm -f "$output"
    [ -z "$made_policy" ] || as_root rm -f $policy
    if [ -d /run/systemd/system ]; then
        for package in "${missing[@]}"; do
            # shellcheck disable=SC2086
            [ -z "${SERVICES[$package]-}" ] || as_root systemctl disable --quiet ${SERVICES[$package]} || true
        done
    fi
    return $status
}

is_recent() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# Prints the Python to make the environment from: the system's where it is recent enough.
find_python() {
    local candidate path
    for candidate in /usr/bin/python3 python3.13 python3.12 python3.11 python3; do
        path=$(command -v "$candidate") || continue
        if is_recent "$path"; then
            printf '%s\n' "$path"
            return
        fi
    done
    return 1
}

# A Python that can make environments and build extensions.
ensure_python() {
    local found version
    if ! found=$(find_python); then
        ensure_packages python3
        found=$(find_python) || { ensure_packages python3.11; found=$(find_python); }
    fi
    case $found in
        /usr/bin/*)
            version=$("$found" -c 'import sys; print("python3.%d" % sys.version_info[1])')
            ensure_packages "$version-venv" "$version-dev"
            ;;
    esac
}

# Prints what uv.lock says of a package, as pip reads it: its version, and the hash of every file of it.
locked() {
    awk -v name="$1" '
        /^\[\[package\]\]/ { here = 0 }
        $0 == "name = \"" name "\"" { here = 1 }
        here && /^version = / { gsub(/"/, ""); printf "%s==%s", name, $3 }
        here && match($0, /hash = "sha256:[0-9a-f]+"/) { printf " --hash=%s", substr($0, RSTART + 8, RLENGTH - 9) }
    ' "$project/uv.lock"
    echo
}

# Makes .venv what uv.lock says; a fraction of a second when it is already.
ensure_environment() {
    local lock
    # What a link leads to is another checkout's, whose code would then run here, or ours there.
    if [ -L "$project/.venv" ]; then
        say "$project/.venv is a link to $(readlink -f "$project/.venv"): remove the link, and run this again"
        return 1
    fi
    exec {lock}<"$project/uv.lock"
    flock "$lock"
    if [ ! -x "$project/.venv/bin/uv" ]; then
        say "Creating .venv"
        "$(find_python)" -m venv "$project/.venv"
        "$python" -m pip install --quiet --disable-pip-version-check --require-hashes --requirement <(locked uv)
    fi
    env -u VIRTUAL_ENV UV_PROJECT_ENVIRONMENT="$project/.venv" UV_PYTHON_DOWNLOADS=never \
        "$project/.venv/bin/uv" sync --quiet --frozen --all-extras --project "$project"
    # Compiled once, every start of the command takes half the time, also where Python is told to write no bytecode.
    if [ ! "$project/.venv/.compiled" -nt "$project/uv.lock" ]; then
        "$python" -m compileall -q -j 0 "$project/.venv/lib" >/dev/null 2>&1 || true
        touch "$project/.venv/.compiled"
    fi
    "$python" -m compileall -q "$project/worker" "$project/schemas" >/dev/null
    exec {lock}<&-
}

# As root, libvirt's QEMU driver wants to see this user, which Debian makes with the daemon that is not needed here.
ensure_qemu_user() {
    if [ "$(id -u)" != 0 ] || getent passwd libvirt-qemu >/dev/null; then
        return 0
    fi
    getent group kvm >/dev/null || groupadd --system kvm
    useradd --system --user-group --groups kvm --home-dir /var/lib/libvirt --no-create-home --shell /usr/sbin/nologin \
        libvirt-qemu
}

# Everything the project runs on; more packages may be named.
ensure_project() {
    ensure_packages "${BASE_PACKAGES[@]}" "$@"
    ensure_python
    ensure_environment
}

# Python of the project's environment, able to find what is in deploy/.
in_environment() {
    PYTHONPATH=$project PYTHONDONTWRITEBYTECODE=1 "$python" "$@"
}

# The private servers; arguments as for deploy/stack.
stack() {
    in_environment -m deploy.lib.stack "$@"
}
