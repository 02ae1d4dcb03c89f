# Installs what is missing, or names it and stops. Sourced by the scripts beside it.

# Debian keeps daemons (mosquitto) out of a user's PATH; rustup's shims may not be in it yet.
PATH=$PATH:/usr/sbin:/sbin:$HOME/.cargo/bin

stop() {
    echo "$*" >&2
    exit 1
}

# Runs a command as root, if that needs no password.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# install_packages PACKAGE...: Debian's, or says how to.
install_packages() {
    if command -v apt-get >/dev/null && as_root true 2>/dev/null; then
        echo "installing $*"
        as_root apt-get -qq update
        as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get -qq install -y --no-install-recommends "$@" >/dev/null
    else
        stop "missing here: $*
install them (Debian, Ubuntu: sudo apt-get install $*) and start this again"
    fi
}

# need COMMAND="PACKAGE..." ...: every COMMAND exists, else all packages of those missing are installed.
need() {
    local pair packages=()
    for pair in "$@"; do
        # Several packages may stand behind one command.
        # shellcheck disable=SC2206
        command -v "${pair%%=*}" >/dev/null || packages+=(${pair#*=})
    done
    [ ${#packages[@]} = 0 ] || install_packages "${packages[@]}"
}

# Prints the first value of a key in a file of this repository: `written channel rust-toolchain.toml`.
written() { sed -n "s/^$1 = \"\(.*\)\".*/\1/p" "$2" | head -n 1; }

# The toolchain that rust-toolchain.toml names, or a distribution's own that is no older.
need_rust() {
    local wanted channel found
    wanted=$(written rust-version Cargo.toml)
    channel=$(written channel rust-toolchain.toml)
    if ! command -v rustup >/dev/null; then
        found=$(rustc --version 2>/dev/null | cut -d' ' -f2) || true
        if [ -n "$found" ] && printf '%s\n' "$wanted" "$found" | sort -VC; then return; fi
        echo "installing Rust $channel through rustup"
        need curl="curl ca-certificates"
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
            sh -s -- -y -q --profile minimal --default-toolchain none --no-modify-path ||
            stop "no Rust from $wanted on, and rustup could not be installed: see https://rustup.rs"
        hash -r
    fi
    if ! { rustc --version && cargo clippy --version && cargo fmt --version; } >/dev/null 2>&1; then
        rustup toolchain install "$channel" --profile minimal --component rustfmt,clippy
    fi
}

# need_target TRIPLE: the standard library for that target.
need_target() {
    if ! command -v rustup >/dev/null; then
        [ -d "$(rustc --print sysroot)/lib/rustlib/$1" ] ||
            stop "missing here: Rust's standard library for $1 (rustup target add $1)"
    elif ! rustup target list --installed | grep -qx "$1"; then
        rustup target add "$1"
    fi
}
