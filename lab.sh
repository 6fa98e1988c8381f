#!/usr/bin/env bash
# Start the lab; on the first run, install what it needs.
#
#   sudo ./lab.sh demo        everything that follows goes to `lab` as it is
#
# What it installs: Debian 12 packages (root or sudo needed) and a Python environment in .venv with
# the versions of requirements.lock; a file whose hash is not in it is refused. Later runs only
# compare a checksum. An interrupted run is taken up again by the next one.
set -eu

here=${BASH_SOURCE[0]}
while [ -L "$here" ]; do
    target=$(readlink -- "$here")
    case $target in /*) here=$target ;; *) here=$(dirname -- "$here")/$target ;; esac
done
root=$(cd -- "$(dirname -- "$here")" && pwd -P)
venv=$root/.venv
python=$venv/bin/python
stamp=$venv/lab-ready
log=$venv/setup.log
case :$PATH: in *:/usr/sbin:*) ;; *) PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin && export PATH ;; esac

# The lab itself; the second kernel (`lab vm`, `lab test`); a browser for the pages (`lab test`).
packages=(clang llvm libbpf1 libbpf-dev linux-libc-dev bpftool iproute2 nftables iptables ethtool
    conntrack kmod procps python3 python3-venv python3-bpfcc mininet tcpdump tshark iputils-ping ca-certificates)
programs=(clang llvm-strip bpftool ip tc nft iptables ethtool conntrack modprobe mn tcpdump tshark ping)
modules=(bcc mininet)
case ${1:-} in
vm | test)
    packages+=(qemu-system-x86 linux-image-amd64 busybox-static file)
    programs+=(qemu-system-x86_64 busybox file)
    ;;
esac
case ${1:-} in
test)
    packages+=(chromium linux-headers-amd64)
    programs+=(chromium)
    ;;
esac
# A probe of one's own (`lab trace --probe`) is compiled by bcc against kernel headers.
case " $* " in *" --probe"[\ =]*) packages+=(linux-headers-amd64) ;; esac
# One benchmark measures bpftrace beside the tracer, here or on the second kernel.
case " $* " in *" tracing_bpftrace "*) packages+=(bpftrace) && programs+=(bpftrace) ;; esac

say() { printf 'lab.sh: %s\n' "$*" >&2; }

# Tell what failed and what to do next, then stop. The wrong input code: nothing was tried in vain.
give_up() {
    say "error: $1"
    shift
    for line in "$@"; do say "hint: $line"; done
    exit 2
}

# What the environment was built from, and where: a changed lock file or a moved folder rebuilds.
wanted_stamp() {
    { printf '%s\n' "$root"; cat -- "$root/lab.sh" "$root/requirements.lock" "$root/pyproject.toml"; } |
        sha256sum
}

missing_programs() {
    local name missing=()
    for name in "${programs[@]}"; do command -v -- "$name" >/dev/null || missing+=("$name"); done
    for name in "${modules[@]}"; do
        [ -d "/usr/lib/python3/dist-packages/$name" ] || missing+=("python3 module $name")
    done
    case " ${packages[*]} " in
    *" linux-image-amd64 "*) compgen -G '/boot/vmlinuz-*' >/dev/null || missing+=("a kernel in /boot") ;;
    esac
    case " ${packages[*]} " in
    *" linux-headers-amd64 "*) compgen -G '/usr/src/linux-headers-*-amd64' >/dev/null || missing+=("kernel headers") ;;
    esac
    [ ${#missing[@]} -eq 0 ] || printf '%s, ' "${missing[@]}" | sed 's/, $/\n/'
}

missing_packages() {
    local name
    for name in "${packages[@]}"; do
        case $(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null || true) in
        installed) ;;
        *) printf '%s ' "$name" ;;
        esac
    done
}

# Run a long command with its output in the log; on a terminal show the seconds and its last line.
quietly() {
    local what=$1 started=$SECONDS told=$SECONDS code=0
    shift
    say "$what ..."
    set -m # its own process group, so that all of it can be stopped
    "$@" >>"$log" 2>&1 </dev/null 9>&- &
    local job=$!
    set +m
    trap 'kill -- -"$job" 2>/dev/null; wait "$job" 2>/dev/null; say "interrupted; the next run goes on from here"; exit 130' INT TERM
    while kill -0 "$job" 2>/dev/null; do
        if [ -t 2 ]; then
            printf '\r\033[K  %4ds  %.70s' $((SECONDS - started)) "$(tail -n 1 -- "$log" | tr -d '\r')" >&2
        elif [ $((SECONDS - told)) -ge 30 ]; then
            told=$SECONDS
            say "$((SECONDS - started)) s so far"
        fi
        sleep 0.2
    done
    wait "$job" || code=$?
    trap - INT TERM
    [ ! -t 2 ] || printf '\r\033[K' >&2
    if [ "$code" -ne 0 ]; then
        tail -n 15 -- "$log" >&2
        say "$what: failed with code $code; all of it is in $log"
        return "$code"
    fi
    say "$what: done in $((SECONDS - started)) s"
}

as_root=()
become_root() {
    [ "$(id -u)" -ne 0 ] || return 0
    if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        as_root=(sudo)
        sudo -v || return 1
        return 0
    fi
    return 1
}

apt_get() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 apt-get -o DPkg::Lock::Timeout=900 \
        -o Acquire::Retries=3 -o APT::Update::Error-Mode=any "$@"
}

# Two attempts: with the package lists as they are, then with fresh ones. Recommended packages stay
# out: mininet's would start Open vSwitch's services.
install_now() {
    "${as_root[@]}" dpkg --configure -a
    apt_get install -y --no-install-recommends "$@" || {
        apt_get update
        apt_get install -y --no-install-recommends "$@"
    }
}

install_packages() {
    local lacking what=()
    lacking=$(missing_programs)
    [ -n "$lacking" ] || return 0
    # shellcheck disable=SC1091
    if ! (. /etc/os-release && [ "${ID:-}" = debian ] && [ "${VERSION_ID:-}" = 12 ]) 2>/dev/null; then
        give_up "this is not Debian 12, and these are missing: $lacking" \
            "install what Debian calls: ${packages[*]}" "then run the same command again"
    fi
    read -ra what <<<"$(missing_packages)"
    [ ${#what[@]} -gt 0 ] || give_up "missing although their packages are installed: $lacking" \
        "repair with: apt-get install --reinstall ${packages[*]}"
    become_root || give_up "set-up is not complete and needs root: ${what[*]}" \
        "run once: sudo ./lab.sh $1"
    quietly "installing ${#what[@]} Debian packages (${what[*]})" install_now "${what[@]}" ||
        give_up "Debian's packages could not be installed" "read $log, then run the same command again"
}

build_environment() {
    if ! "$python" -c 'import pip' 2>/dev/null; then
        # Half of one (an interrupted run) is no use; the log and the lock stay.
        rm -rf -- "$venv/bin" "$venv/lib" "$venv/lib64" "$venv/include" "$venv/pyvenv.cfg"
        quietly "making the Python environment .venv" \
            /usr/bin/python3 -m venv --system-site-packages "$venv" || return 1
    fi
    local pip=("$python" -m pip --disable-pip-version-check --no-input)
    quietly "installing $(grep -c '^[^#].*==' "$root/requirements.lock") Python packages (requirements.lock)" \
        "${pip[@]}" install --no-deps --require-hashes -r "$root/requirements.lock" || return 1
    quietly "installing the lab itself (editable)" \
        "${pip[@]}" install --no-deps --no-build-isolation -e "$root" || return 1
}

set_up() {
    local want=$1 command=${2:-doctor}
    [ -w "$root" ] || give_up "set-up is not complete, and you may not write to $root" \
        "run once: sudo $root/lab.sh doctor"
    mkdir -p -- "$venv"
    exec 9>"$venv/lock"
    flock -n 9 || { say "another lab.sh is setting up; waiting for it" && flock 9; }
    install_packages "$command"
    if [ "$(cat -- "$stamp" 2>/dev/null)" != "$want" ]; then
        build_environment || give_up "the Python environment could not be made" \
            "read $log, then run the same command again"
        printf '%s\n' "$want" >"$stamp"
    fi
    # Under sudo in a user's clone: the environment belongs to whoever owns the clone.
    [ "$(id -u)" -ne 0 ] || chown -R --reference="$root" -- "$venv"
    exec 9>&-
}

want=$(wanted_stamp)
if [ "$(cat -- "$stamp" 2>/dev/null)" != "$want" ] || [ -n "$(missing_programs)" ]; then
    set_up "$want" "$@"
fi
# -P: a folder called lab where the command is typed is not the lab.
exec "$python" -P -m lab "$@"
