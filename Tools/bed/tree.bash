# shellcheck shell=bash
# The Debian 13 tree: QEMU 10 and other programs that peers and tests need, unpacked only.
# They run through the tree's own dynamic loader: no chroot, no mounts, no root,
# and every path means what it means outside. Source it after lib.bash.

readonly tree_packages=(qemu-system-x86 qemu-utils seabios virtiofsd passt)

ensure_tree() {
    make_cached bed/tree "$(key_of tree-1 trixie "${tree_packages[@]}")" make_tree
}

make_tree() {
    unpack trixie closure "$1" "${tree_packages[@]}"
    rm -rf "$1"/usr/share/{doc,man,locale,info,icons}
    [[ -x $1/usr/bin/qemu-system-x86_64 && -x $1/usr/lib64/ld-linux-x86-64.so.2 ]] ||
        die "the Debian 13 tree has no QEMU or no loader"
}

tree_path() { printf '%s\n' "$SWIFTLET_CACHE/bed/tree/$1"; }

# tree_command PROGRAM: prints the words that start a program of the tree, one a line.
tree_command() {
    local libraries
    libraries=$(tree_path usr/lib/x86_64-linux-gnu)
    printf '%s\n' "$(tree_path usr/lib64/ld-linux-x86-64.so.2)" --library-path \
        "$libraries:$libraries/pulseaudio" --argv0 "${1##*/}" "$(tree_path "$1")"
}
