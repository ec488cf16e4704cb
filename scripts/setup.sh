#!/usr/bin/env bash
# Installs what this project needs from the machine, and nothing that is there already.
#
#   scripts/setup.sh run    what running sandboxes needs (make demo)
#   scripts/setup.sh test   that, and what checks and tests need (make test)
#
# It asks nothing and may be run any number of times. As root on Debian it installs; otherwise it
# says what to install. A thing counts as present when what the project uses of it is there,
# wherever that came from.
#
# SANDBOX_KERNEL_DIR: the only place to look for the guest kernel, and where to put it.
set -euo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
cd "$(dirname "$0")/.."
: "${HOME:=$(getent passwd "$(id -u)" | cut -d : -f 6)}"
# Administrators' programs are not in everyone's PATH, nor is a fresh Rust toolchain.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:${CARGO_HOME:-$HOME/.cargo}/bin

KERNEL_PACKAGE=linux-image-cloud-amd64

say() { printf 'setup: %s\n' "$*"; }
have() { say "$*: there"; }
die() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

is_root() { [ "$(id -u)" -eq 0 ]; }
is_debian() { command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; }
has_program() { command -v "$1" >/dev/null; }

# --- Packages ------------------------------------------------------------------------------------

missing=()

# need WHAT PACKAGE CHECK...: notes the package unless the check succeeds.
need() {
    if "${@:3}"; then
        have "$1"
    else
        say "$1: missing"
        missing+=("$2")
    fi
}

check_packages() {
    missing=()
    need "the C compiler" gcc has_program cc
    # The guest agent is linked statically.
    need "the C library for static linking" libc6-dev has_static_libc
    need "make" make has_program make
    need "QEMU" qemu-system-x86 has_qemu
    need "e2fsprogs" e2fsprogs has_program mke2fs
    need "a static busybox" busybox-static has_static_busybox
    if [ "$mode" = test ]; then
        need "mount and losetup" mount has_mount
        # As root the tests run their PostgreSQL as another user, by setpriv.
        need "setpriv" util-linux has_program setpriv
        # Disks that share blocks are tested on an XFS in a file.
        need "mkfs.xfs" xfsprogs has_program mkfs.xfs
        # Templates of Debian are made with it, which running sandboxes does not need.
        need "mmdebstrap" mmdebstrap has_program mmdebstrap
        need "a PostgreSQL server" postgresql has_postgres
        need "a Redis server" redis-server has_program redis-server
        need "Python with venv" python3-venv has_python
    fi
}

has_static_libc() {
    has_program cc || return 1
    # cc prints the bare name back when it does not find the file.
    [ "$(cc -print-file-name=libc.a)" != libc.a ]
}
has_qemu() { has_program qemu-system-x86_64 && has_program qemu-img; }
has_postgres() {
    local folder
    for folder in /usr/lib/postgresql/*/bin; do
        [ ! -x "$folder/initdb" ] || return 0
    done
    has_program initdb && has_program postgres
}
has_python() { has_program python3 && python3 -c 'import venv, ensurepip' 2>/dev/null; }
has_mount() { has_program mount && has_program umount && has_program losetup; }
has_static_busybox() {
    has_program busybox || return 1
    # For a static program ldd fails or says so; for others it names the loader.
    ! ldd "$(command -v busybox)" 2>/dev/null | grep -q -e '=>' -e ld-linux
}

lists_are_fresh=no

fetch_lists() {
    say "fetching package lists (apt-get update)"
    lists_are_fresh=yes
    # A third-party source that fails must not stand in the way of Debian's own.
    apt-get update -q=2 -o DPkg::Lock::Timeout=300 >/dev/null 2>&1 ||
        say "some package lists could not be fetched; going on with the others"
}

# The version that apt would install; empty where it knows none.
candidate() {
    apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: *//p' | grep -vxF '(none)' || true
}

# Makes sure that apt knows the packages, with fresh lists if need be.
know() {
    local package
    for package in "$@"; do
        if [ -z "$(candidate "$package")" ] && [ "$lists_are_fresh" = no ]; then
            is_root || die "apt does not know $package. Run: sudo apt-get update"
            fetch_lists
        fi
        [ -n "$(candidate "$package")" ] ||
            die "no package source of this machine has $package (see /etc/apt/sources.list.d)"
    done
}

# Fills `packages` with what apt is to install for `missing`.
resolve() {
    packages=()
    local package version present
    for package in "${missing[@]}"; do
        if [ "$package" != qemu-system-x86 ]; then
            packages+=("$package")
            continue
        fi
        # QEMU and its tools exclude each other unless they are of one version.
        version=$(candidate qemu-system-x86)
        present=$(dpkg-query -W -f='${Version}' qemu-utils 2>/dev/null || true)
        if [ -n "$present" ] && dpkg --compare-versions "$present" gt "$version"; then
            say "qemu-utils goes down from $present to $version: it must match qemu-system-x86"
        fi
        packages+=("qemu-system-x86=$version" "qemu-utils=$version")
    done
}

install_args=(install -y --no-install-recommends --allow-downgrades)

try_install() {
    know "${missing[@]}"
    resolve
    say "installing ${packages[*]}"
    keep_services_off
    local status=0
    apt-get "${install_args[@]}" -q -o DPkg::Lock::Timeout=300 "${packages[@]}" >"$log" 2>&1 || status=$?
    let_services_on
    return "$status"
}

# The tests start their own servers: what installs one for them must not start the system's, neither
# now nor at the next boot.
SERVICES=(postgresql redis-server)
POLICY=/usr/sbin/policy-rc.d
policy_is_ours=no

keep_services_off() {
    # One that is there already is the administrator's.
    [ ! -e "$POLICY" ] || return 0
    policy_is_ours=yes
    cat >"$POLICY" <<'END'
#!/bin/sh
# Made by scripts/setup.sh for the time of an installation.
case $1 in postgresql* | redis-server*) exit 101 ;; esac
END
    chmod 755 "$POLICY"
}

let_services_on() {
    [ "$policy_is_ours" = no ] || rm -f "$POLICY"
    policy_is_ours=no
    local service
    for service in "${SERVICES[@]}"; do
        [[ " ${missing[*]} " == *" $service "* ]] || continue
        # Whether systemd or the older scripts start it.
        if has_program systemctl; then
            systemctl disable "$service" >/dev/null 2>&1 || true
        fi
        update-rc.d "$service" disable >/dev/null 2>&1 || true
    done
}

install_missing() {
    is_debian || die "missing, by the names of Debian's packages: ${missing[*]}" \
        "Only Debian and its relatives are set up from here. Install these with this system's" \
        "package manager, then run this again."
    [ "$(dpkg --print-architecture)" = amd64 ] || die "only amd64 machines are supported"
    if ! is_root; then
        know "${missing[@]}"
        resolve
        die "installing packages needs root. Run:" "  sudo apt-get ${install_args[*]} ${packages[*]}"
    fi
    log=$scratch/apt.log
    if ! try_install; then
        if [ "$lists_are_fresh" = yes ]; then
            tail -n 20 "$log" >&2
            die "apt-get could not install ${packages[*]}"
        fi
        # Old lists name files that the mirror no longer has.
        fetch_lists
        try_install || {
            tail -n 20 "$log" >&2
            die "apt-get could not install ${packages[*]}"
        }
    fi
    check_packages >"$log"
    [ ${#missing[@]} -eq 0 ] || die "still missing after the installation: ${missing[*]}"
}

# --- Guest kernel --------------------------------------------------------------------------------

# Prints the newest usable kernel below a folder that looks like the root of a kernel package.
kernel_in() {
    local image version found=""
    for image in "$1"/boot/vmlinuz-*cloud*; do
        version=${image##*/vmlinuz-}
        # The extraction makes compressed modules plain ones; a kernel with others is of no use.
        if [ -f "$image" ] && [ -f "$1/lib/modules/$version/kernel/drivers/block/virtio_blk.ko" ]; then
            found=$(printf '%s\n' "$found" "$version" | sort -V | tail -n 1)
        fi
    done
    printf '%s' "$found"
}

ensure_kernel() {
    local places=() place version target
    if [ -n "${SANDBOX_KERNEL_DIR:-}" ]; then
        places=("$SANDBOX_KERNEL_DIR")
        target=$SANDBOX_KERNEL_DIR
    else
        places=("$HOME/.local/share/sandbox/kernel" /usr/local/share/sandbox/kernel /)
        target=/usr/local/share/sandbox/kernel
        is_root || target=$HOME/.local/share/sandbox/kernel
    fi
    for place in "${places[@]}"; do
        version=$(kernel_in "$place")
        if [ -n "$version" ]; then
            have "the guest kernel $version"
            return
        fi
    done
    say "the guest kernel: missing"
    is_debian || die "it is the one of Debian's package $KERNEL_PACKAGE: extract that package's" \
        "boot/ and lib/modules/ into $target, then run this again."
    fetch_kernel "$target"
}

download_kernel() {
    know "$KERNEL_PACKAGE"
    package=$(apt-cache depends "$KERNEL_PACKAGE" | sed -n 's/^ *Depends: *\(linux-image-\)/\1/p' | head -n 1)
    [ -n "$package" ] || die "$KERNEL_PACKAGE names no kernel"
    say "downloading $package, to be extracted into $1, not installed"
    # apt's own user may not write to our folder.
    (cd "$scratch" && apt-get download -q=2 -o APT::Sandbox::User=root "$package") >"$scratch/apt.log" 2>&1
}

# fetch_kernel TARGET: appears whole or not at all.
fetch_kernel() {
    local target=$1 package
    if ! download_kernel "$target"; then
        if [ "$lists_are_fresh" = no ] && is_root; then
            fetch_lists
            download_kernel "$target" || kernel_failed
        else
            kernel_failed
        fi
    fi
    mkdir -p "$(dirname "$target")"
    making=$(mktemp -d "$(dirname "$target")/.kernel-XXXXXX")
    chmod 755 "$making"
    dpkg-deb --fsys-tarfile "$scratch"/linux-image-*.deb |
        tar -x -C "$making" --no-same-owner --wildcards \
            './boot/vmlinuz*' './boot/config*' './*lib/modules/*'
    # Newer packages have their modules in /usr/lib, and compressed.
    if [ -d "$making/usr/lib" ]; then
        mv "$making/usr/lib" "$making/lib"
        rmdir "$making/usr"
    fi
    if [ -n "$(find "$making" -name '*.ko.xz' -print -quit)" ]; then
        has_program xz || {
            missing=(xz-utils)
            install_missing
        }
        find "$making" -name '*.ko.xz' -exec xz -d {} +
    fi
    [ -n "$(kernel_in "$making")" ] || die "$package does not hold what a guest needs"
    # Nothing, or something unusable, is in the way; or another run was faster.
    rm -rf "$making.old"
    [ ! -e "$target" ] || mv -T "$target" "$making.old"
    mv -T "$making" "$target"
    rm -rf "$making.old"
    have "the guest kernel $(kernel_in "$target") (in $target)"
}

kernel_failed() {
    tail -n 5 "$scratch/apt.log" >&2
    is_root || die "the kernel could not be downloaded. If the package lists are old, run:" \
        "  sudo apt-get update"
    die "the kernel could not be downloaded"
}

# --- Rust ----------------------------------------------------------------------------------------

ensure_rust() {
    local wanted version
    wanted=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' Cargo.toml)
    if ! has_program cargo || ! has_program rustc; then
        die "Rust $wanted or newer is missing. It is not installed from here; run:" \
            "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y" \
            "and then this again."
    fi
    version=$(rustc --version | cut -d ' ' -f 2)
    if [ "$(printf '%s\n' "$wanted" "$version" | sort -V | head -n 1)" != "$wanted" ]; then
        die "Rust $version is older than the $wanted that is needed. Run: rustup update stable"
    fi
    have "Rust $version"
    [ "$mode" = test ] || return 0
    if cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1; then
        have "rustfmt and clippy"
    elif has_program rustup; then
        say "adding rustfmt and clippy to the Rust toolchain"
        rustup component add rustfmt clippy || die "rustup could not add rustfmt and clippy"
    else
        die "rustfmt and clippy are missing; install them from where Rust came"
    fi
    if cargo nextest --version >/dev/null 2>&1; then
        have "cargo-nextest"
    else
        say "building cargo-nextest (some minutes)"
        cargo install --locked cargo-nextest
    fi
}

# --- Python --------------------------------------------------------------------------------------

# What scripts/schemathesis.sh runs, in a folder of this project's own: nothing of the system's
# Python is touched.
ensure_schemathesis() {
    local wanted=4.32.5 folder=target/schemathesis version
    version=$("$folder/bin/schemathesis" --version 2>/dev/null | sed -n 's/.*version //p' || true)
    if [ "$version" = "$wanted" ]; then
        have "schemathesis $wanted"
        return
    fi
    say "installing schemathesis $wanted into $folder"
    mkdir -p target
    rm -rf "$folder"
    {
        python3 -m venv "$folder" &&
            "$folder/bin/pip" install --quiet --disable-pip-version-check --retries 5 \
                "schemathesis==$wanted"
    } >"$scratch/pip.log" 2>&1 || {
        tail -n 10 "$scratch/pip.log" >&2
        die "schemathesis could not be installed from the Python package index"
    }
}

# -------------------------------------------------------------------------------------------------

mode=${1:-}
case $mode in
run | test) ;;
*) die "usage: scripts/setup.sh run|test" ;;
esac
scratch=$(mktemp -d)
making=
trap 'let_services_on; rm -rf "$scratch" ${making:+"$making"}' EXIT
check_packages
[ ${#missing[@]} -eq 0 ] || install_missing
ensure_kernel
ensure_rust
[ "$mode" != test ] || ensure_schemathesis
