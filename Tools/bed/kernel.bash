# shellcheck shell=bash
# Debian kernels for the bed and for guests: the bzImage, the ELF in it, and the modules.
# Source it after lib.bash.

# ensure_kernel NAME SUITE METAPACKAGE: makes $SWIFTLET_CACHE/NAME with
# vmlinuz, vmlinux, version, and modules/lib/modules/VERSION with its depmod data.
ensure_kernel() {
    make_cached "$1" "$(key_of "${BASH_SOURCE[0]}" "$2" "$3")" make_kernel "$2" "$3"
}

make_kernel() {
    local suite=$1 metapackage=$2 out=$3 tree=$3.tree package version
    need depmod kmod
    package=$(newest_of "$suite" "$metapackage")
    [[ -n $package ]] || die "$suite has no $metapackage"
    version=${package#linux-image-}
    rm -rf "$tree"
    unpack "$suite" only "$tree" "$package"
    mkdir -p "$out/modules/lib"
    cp "$tree/boot/vmlinuz-$version" "$out/vmlinuz"
    # Debian 12 has /lib/modules, Debian 13 /usr/lib/modules.
    if [[ -d $tree/usr/lib/modules ]]; then mv "$tree"/usr/lib/modules "$out/modules/lib/"
    else mv "$tree"/lib/modules "$out/modules/lib/"; fi
    rm -rf "$tree"
    depmod -b "$out/modules" "$version" || die "depmod failed for $version"
    extract_elf "$out/vmlinuz" "$out/vmlinux"
    printf '%s\n' "$version" >"$out/version"
}

# extract_elf BZIMAGE OUT: unpacks the kernel proper. The boot protocol (x86/boot.rst, 2.08)
# gives the payload's place from the end of the setup sectors; its last four bytes are the
# unpacked size, which no unpacker but gzip's expects.
extract_elf() {
    local image=$1 out=$2 sectors offset length start magic
    sectors=$(read_number "$image" 0x1f1 1)
    ((sectors != 0)) || sectors=4
    offset=$(read_number "$image" 0x248 4)
    length=$(read_number "$image" 0x24c 4)
    start=$(((sectors + 1) * 512 + offset))
    magic=$(od -An -tx1 -j "$start" -N 6 "$image" | tr -d ' \n')
    case $magic in
        1f8b*) payload "$image" "$start" "$length" | gzip -dc ;;
        28b52ffd*) need zstd zstd; payload "$image" "$start" $((length - 4)) | zstd -dcq ;;
        fd377a585a00) need xz xz-utils; payload "$image" "$start" $((length - 4)) | xz -dc ;;
        02214c18*) need lz4 lz4; payload "$image" "$start" $((length - 4)) | lz4 -dcq ;;
        *) die "$image has a payload of an unknown kind ($magic)" ;;
    esac >"$out"
    [[ $(head -c 4 "$out" | od -An -tx1) == " 7f 45 4c 46" ]] || die "$image holds no ELF"
}

# read_number FILE OFFSET SIZE: a little-endian number.
read_number() { od -An -tu"$3" -j "$(($2))" -N "$3" "$1" | tr -d ' '; }

# payload FILE START LENGTH
payload() {
    dd if="$1" bs=1M iflag=skip_bytes,count_bytes,fullblock skip="$2" count="$3" status=none
}
