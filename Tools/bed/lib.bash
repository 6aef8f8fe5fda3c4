# shellcheck shell=bash
# What the bed and the guest kit share: the cache, its locks, and Debian packages without root.
# Source it after `set -euo pipefail`; `program` names the script in messages.

SWIFTLET_CACHE=${SWIFTLET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/swiftlet}
program=${0##*/}

say() { printf '%s: %s\n' "$program" "$*" >&2; }

die() {
    say "$*"
    exit "${die_status:-1}"
}

# The words after the program are its Debian package.
need() {
    command -v "$1" >/dev/null || die "$1 is missing; install it with: apt-get install $2"
}

# Prints the hash that names what is made from these files and words.
key_of() {
    local argument
    for argument in "$@"; do
        if [[ -f $argument ]]; then cat -- "$argument"; else printf '%s\n' "$argument"; fi
    done | sha256sum | cut -c 1-16
}

# made NAME KEY: whether the cache holds NAME, made from KEY. The key lies beside the product
# so that a product can be one plain file under a stable name.
made() {
    [[ -e $SWIFTLET_CACHE/$1 && -e $SWIFTLET_CACHE/$1.key && $(<"$SWIFTLET_CACHE/$1.key") == "$2" ]]
}

# make_cached NAME KEY MAKER [ARG...]: runs `MAKER ARG... TEMPORARY` once for each KEY.
# One lock per product: a second caller waits and then finds the product.
# The rename comes last, so a killed run leaves no half product behind.
make_cached() {
    local name=$1 key=$2 target=$SWIFTLET_CACHE/$1 temporary
    shift 2
    made "$name" "$key" && return
    mkdir -p "${target%/*}"
    (
        exec 9>"$target.lock"
        flock 9
        made "$name" "$key" && exit
        temporary=$target.new
        rm -rf "$temporary" "$target.key"
        say "making $name"
        set -e
        "$@" "$temporary"
        rm -rf "$target.old"
        [[ ! -e $target ]] || mv -T "$target" "$target.old"
        mv -T "$temporary" "$target"
        printf '%s\n' "$key" >"$target.key.new"
        mv -T "$target.key.new" "$target.key"
        rm -rf "$target.old"
    )
}

# Prints "URI<TAB>KEYRING" of the machine's own Debian archive, from deb822 or one-line sources.
# SWIFTLET_DEBIAN_URI and SWIFTLET_DEBIAN_KEYRING come first: on Ubuntu they are the only way.
debian_archive() {
    local keyring=/usr/share/keyrings/debian-archive-keyring.gpg found
    if [[ -n ${SWIFTLET_DEBIAN_URI:-} ]]; then
        printf '%s\t%s\n' "$SWIFTLET_DEBIAN_URI" "${SWIFTLET_DEBIAN_KEYRING:-$keyring}"
        return
    fi
    found=$(deb822_archives; one_line_archives)
    # The security archive holds no other suite's packages.
    found=$(grep -vE -- '-security|security\.|/ubuntu' <<<"$found" | head -n 1)
    [[ -n $found ]] || die "no Debian archive in the apt sources; set SWIFTLET_DEBIAN_URI" \
        "and install debian-archive-keyring"
    [[ $found == *$'\t'/* ]] || found=${found%%$'\t'*}$'\t'$keyring
    printf '%s\n' "$found"
}

deb822_archives() {
    local files=(/etc/apt/sources.list.d/*.sources)
    [[ -e ${files[0]} ]] || return 0
    awk -v RS= -F '\n' '{
        uri = ""; keyring = ""; types = ""; off = 0
        for (i = 1; i <= NF; i++) {
            split($i, word, /[ \t]+/)
            name = tolower(word[1])
            if (name == "uris:") uri = word[2]
            if (name == "signed-by:") keyring = word[2]
            if (name == "types:") types = $i
            if (name == "enabled:" && tolower(word[2]) == "no") off = 1
        }
        if (uri != "" && types ~ /deb( |$)/ && !off) print uri "\t" keyring
    }' "${files[@]}"
}

one_line_archives() {
    local files=()
    [[ ! -e /etc/apt/sources.list ]] || files+=(/etc/apt/sources.list)
    [[ ! -e $(echo /etc/apt/sources.list.d/*.list) ]] || files+=(/etc/apt/sources.list.d/*.list)
    ((${#files[@]})) || return 0
    sed -nE -e '/^deb[ \t]/!d' -e 's/^deb[ \t]+//' \
        -e 's/^\[[^]]*signed-by=([^] ]*)[^]]*\][ \t]*([^ \t]+).*/\2\t\1/p; t' \
        -e 's/^(\[[^]]*\][ \t]*)?([^ \t]+).*/\2\t/p' "${files[@]}"
}

# private_apt SUITE TOOL [ARG...]: the machine's apt over a private state for SUITE, blind to what is
# installed, so that it needs no root and changes nothing on the machine.
private_apt() {
    local suite=$1 tool=$2 state=$SWIFTLET_CACHE/apt/$1
    shift 2
    "$tool" -qq -o Dir::Etc::sourcelist="$state/sources.list" -o Dir::Etc::sourceparts=- \
        -o Dir::Etc::preferences="$state/none" -o Dir::Etc::preferencesparts="$state/none" \
        -o Dir::State="$state/state" -o Dir::State::lists="$state/lists" \
        -o Dir::State::status="$state/status" -o Dir::Cache="$state/cache" \
        -o APT::Architecture=amd64 -o APT::Architectures=amd64 \
        -o APT::Install-Recommends=false -o APT::Sandbox::User=root \
        -o Dpkg::Use-Pty=0 -o Acquire::Languages=none "$@"
}

# apt_update SUITE: prepares the private state; call it under a lock of the suite.
apt_update() {
    local suite=$1 state=$SWIFTLET_CACHE/apt/$1 archive
    archive=$(debian_archive)
    mkdir -p "$state"/{none,state,lists/partial,cache/archives/partial}
    : >"$state/status"
    printf 'deb [signed-by=%s] %s %s main\n' \
        "${archive#*$'\t'}" "${archive%%$'\t'*}" "$suite" >"$state/sources.list"
    private_apt "$suite" apt-get update >&2
}

# unpack SUITE closure|only DIR PACKAGE...: unpacks the packages into DIR, with all they
# depend on (closure) or without. Nothing is configured and no package script runs.
unpack() {
    local suite=$1 extent=$2 target=$3 debs archive
    shift 3
    need dpkg dpkg
    mkdir -p "$SWIFTLET_CACHE/apt" "$target"
    debs=$(mktemp -d "$SWIFTLET_CACHE/apt/debs.XXXXXX")
    (
        exec 8>"$SWIFTLET_CACHE/apt/$suite.lock"
        flock 8
        apt_update "$suite"
        if [[ $extent == closure ]]; then
            private_apt "$suite" apt-get -y -o Dir::Cache::archives="$debs" \
                --download-only install "$@" >&2
        else
            cd "$debs" && private_apt "$suite" apt-get download "$@" >&2
        fi
    ) || { rm -rf "$debs"; die "apt could not fetch $* of $suite"; }
    for archive in "$debs"/*.deb; do dpkg -x "$archive" "$target"; done
    rm -rf "$debs"
}

# newest_of SUITE METAPACKAGE: the package that the metapackage stands for.
newest_of() {
    (
        mkdir -p "$SWIFTLET_CACHE/apt"
        exec 8>"$SWIFTLET_CACHE/apt/$1.lock"
        flock 8
        apt_update "$1"
        private_apt "$1" apt-cache show "$2" | sed -nE 's/^Depends: ([^ ,]+).*/\1/p' | head -n 1
    )
}

# A static busybox; Debian 13's, because 12's `date` has the same applets but an older `sh`.
ensure_busybox() { make_cached busybox "$(key_of busybox-1 trixie)" make_busybox; }

make_busybox() {
    local tree=$1.tree
    rm -rf "$tree"
    unpack trixie only "$tree" busybox-static
    find "$tree" -type f -path '*bin/busybox' -exec cp {} "$1" \;
    rm -rf "$tree"
    [[ -x $1 ]]
}

# install_busybox DIR: busybox there, with a link for each applet.
install_busybox() {
    local applet
    mkdir -p "$1"
    cp "$SWIFTLET_CACHE/busybox" "$1/busybox"
    while read -r applet; do
        [[ $applet == busybox ]] || ln -s busybox "$1/$applet"
    done < <("$1/busybox" --list)
}

# make_cpio DIR OUT: the same tree gives the same bytes. Not compressed: unpacking costs more
# in an emulated machine than reading a few more megabytes.
make_cpio() {
    need cpio cpio
    find "$1" -exec touch -h -d @0 {} +
    (cd "$1" && find . -mindepth 1 -print0 | LC_ALL=C sort -z |
        cpio --null --create --format=newc --owner=0:0 --reproducible --quiet) >"$2"
}

# copy_modules MODULE_ROOT VERSION OUT NAME...: copies modules and all they need, unpacked,
# to OUT, and writes OUT/order, the order in which insmod can load them.
# A name that VERSION builds in, or does not have, is left out.
copy_modules() {
    local root=$1 version=$2 out=$3 name path file
    shift 3
    need modprobe kmod
    mkdir -p "$out"
    for name in "$@"; do
        { modprobe -d "$root" -S "$version" --show-depends "$name" 2>/dev/null || true; }
    done | sed -nE 's/^insmod ([^ ]+).*/\1/p' | awk '!seen[$0]++' |
        while read -r path; do
            file=${path##*/}
            file=${file%%.ko*}.ko
            case $path in
                *.xz) xz -dc "$path" ;;
                *.zst) zstd -dcq "$path" ;;
                *) cat "$path" ;;
            esac >"$out/$file"
            printf '%s\n' "$file"
        done >"$out/order"
    [[ -s $out/order ]] || die "no modules of $version found in $root"
}
