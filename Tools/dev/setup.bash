# What a machine must have. Sourced by ./dev.

say() { printf '== %s\n' "$*" >&2; }

need_swift() {
    if ! command -v swift >/dev/null && [[ -x /opt/swift/usr/bin/swift ]]; then
        PATH=/opt/swift/usr/bin:$PATH
    fi
    if ! command -v swift >/dev/null; then
        echo "./dev: Swift 6.2 or newer is needed: get it from swift.org/install, unpack it and put its usr/bin into PATH" >&2
        exit 1
    fi
}

# Debian packages, each with a file that tells whether it is there.
readonly packages=(
    'acpica-tools:/usr/bin/iasl'
    'binutils:/usr/bin/strip'
    'busybox-static:/bin/busybox'
    'cpio:/usr/bin/cpio'
    'curl:/usr/bin/curl'
    'e2fsprogs:/sbin/mke2fs'
    'ethtool:/sbin/ethtool'
    'fio:/usr/bin/fio'
    'gcc:/usr/bin/gcc'
    'iperf3:/usr/bin/iperf3'
    'iproute2:/sbin/ip'
    'kmod:/sbin/modprobe'
    'libc6-dev:/usr/include/stdio.h'
    'liburing-dev:/usr/include/liburing.h'
    'libzstd-dev:/usr/include/zstd.h'
    'lz4:/usr/bin/lz4'
    'mmdebstrap:/usr/bin/mmdebstrap'
    'passt:/usr/bin/passt'
    'python3:/usr/bin/python3'
    'qemu-utils:/usr/bin/qemu-img'
    'shellcheck:/usr/bin/shellcheck'
    'strace:/usr/bin/strace'
    'xz-utils:/usr/bin/xz'
    'zlib1g-dev:/usr/include/zlib.h'
    'zstd:/usr/bin/zstd'
)

need_packages() { install_packages "${packages[@]}"; }

# install_packages PACKAGE:FILE...: those whose file is missing.
install_packages() {
    local entry missing=()
    for entry in "$@"; do
        [[ -e ${entry#*:} ]] || missing+=("${entry%%:*}")
    done
    ((${#missing[@]})) || return 0
    if ! command -v apt-get >/dev/null; then
        echo "./dev: these are missing, and there is no apt-get to install them: ${missing[*]}" >&2
        exit 1
    fi
    local as_root=()
    ((EUID == 0)) || as_root=(sudo)
    say "installing ${missing[*]}"
    "${as_root[@]}" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends \
        "${missing[@]}" >/dev/null
}
