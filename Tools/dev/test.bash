# All that CI runs. Sourced by ./dev.

test_bundle=.build/debug/swiftletPackageTests.xctest

# Runs the compiled bundle itself: `swift test` costs 24 s in the bed.
run_bundle() { "$@" --testing-library swift-testing; }

# All of it, the unit tests alone, these under a sanitizer (`--sanitize address|thread`; the boot
# tests too where it is `thread`), or the boot tests alone with filters that only log.
run_tests() {
    case ${1:-} in
        '' | --unit | --log-calls) ;;
        --sanitize) need_swift; need_packages; sanitize "${2:-}"; return ;;
        *) printf '%s\n' "./dev test: unknown option '$1'" >&2; return 2 ;;
    esac
    need_swift
    need_packages
    if [[ ${1:-} == --log-calls ]]; then
        build_boot_tests
        export SWIFTLET_SECCOMP=log
        run_boot_tests Tools/bed/logged-calls
        return
    fi
    say "format and scripts"
    format --check
    # shellcheck disable=SC2046  # the list of scripts has no spaces in it
    shellcheck -x -P SCRIPTDIR $(git grep -lE '^#!.*(bash|sh)$' -- ':!*.swift' ':!*.md')
    say "building tests"
    swift build --build-tests --quiet
    say "unit tests"
    run_bundle "$root/$test_bundle" --skip '^BootTests\.'
    [[ ${1:-} == --unit ]] && return
    # The same inputs each time, as far as the minute goes: a failure is the fault of a change.
    run_fuzzers --seconds 60 --seed 1
    crash_writers 400 1
    build_release
    build_tool
    check_api
    prepare_boot_tests
    run_boot_tests
}

# In a build directory of its own. What SWIFTLET_SANITIZER names takes more memory and time.
sanitize() {
    export SWIFTLET_SANITIZER=$1
    local skipped='^BootTests\.' preload='' shim=.build-thread/mutex.so
    case $1 in
        address) export ASAN_OPTIONS=detect_leaks=0:suppressions=Tools/sanitize/address.supp ;;
        thread)
            # A child that shares our memory until it executes its program is what ends the
            # sanitizer itself.
            skipped+='|ChildProcessTests|PasstTests'
            export TSAN_OPTIONS=halt_on_error=0
            ;;
        *) printf '%s\n' "./dev test --sanitize: expected address or thread" >&2; return 2 ;;
    esac
    say "building tests for the $1 sanitizer"
    swift build --build-tests --sanitize="$1" --scratch-path ".build-$1" --quiet
    if [[ $1 == thread ]]; then
        clang -O2 -fPIC -shared -o "$shim" Tools/sanitize/mutex.c
        preload=$root/$shim
    fi
    say "unit tests under the $1 sanitizer"
    LD_PRELOAD=$preload run_bundle ".build-$1/debug/swiftletPackageTests.xctest" --skip "$skipped"
    if [[ $1 == thread ]]; then watch_threads; fi
}

# The boot tests of a monitor that ThreadSanitizer watches: it takes calls and opens files of its
# own, so filters and what looks at these are left out; and so are jails and bare namespaces, where
# its libraries are not, what starts a child, as above, and 64 vCPUs, under which the bed stands still.
watch_threads() {
    build_boot_tests
    export SWIFTLET_VMM=$root/Tools/sanitize/monitor
    boot_skip='^BootTests\.(Jail|Sandbox|StartUp|BadInput|RootlessNetwork)Tests|HotplugTests/companions|ProcessorTests/many'
    run_boot_tests Tools/sanitize/reports
}

build_boot_tests() {
    swift build --build-tests --quiet
    build_release
    build_tool
    prepare_boot_tests
}

prepare_boot_tests() {
    say "boot tests on: $(Tools/bed/bed --which)"
    Tools/guest/kernels
    Tools/guest/toolsdisk
    export SWIFTLET_VMM=$root/$release/swiftlet-vmm
    export SWIFTLET_TOOL=$root/$release/swiftlet
    export SWIFTLET_GUEST_DIR=${SWIFTLET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/swiftlet}/guest
    local version program
    for version in 6.1 6.12 generic; do
        Tools/guest/initramfs "$version" "$SWIFTLET_GUEST_DIR/initramfs-$version"
    done
    for program in vsock-peer traffic; do
        Tools/guest/program "$program" "$SWIFTLET_GUEST_DIR/$program"
    done
}

# The monitor wants to open KVM when it starts, though no machine is booted.
check_api() {
    if [[ ! -w /dev/kvm ]]; then
        say "the API is not held to its description: there is no /dev/kvm here"
        return
    fi
    python3 -c 'import ensurepip' 2>/dev/null || install_packages 'python3-venv:/nonexistent'
    say "the API is held to its description"
    local log
    log=$(mktemp)
    if ! Tools/api/conformance "$release/swiftlet-vmm" >"$log" 2>&1; then
        cat "$log"
        return 1
    fi
    tail -n 1 "$log"
    rm "$log"
}

# Two beds side by side, for each keeps to one CPU (docs/TESTING-BED.md). The first has the
# memory that an 8 GiB guest needs, and BadInputTests, which look for interfaces left behind and
# so must not run beside the automatic names of NetworkTests.
# run_boot_tests [WRAPPER]: the tests are arguments of WRAPPER. Without those that `boot_skip` names.
boot_skip='^$'
run_boot_tests() {
    local heavy='^BootTests\.(Memory|Processor|BootMatrix|Lifecycle|BadInput|Disk|DiskLoad|DiskFault|Transport|Sandbox|Jail|CoreDump)Tests'
    local logs status=0 first
    logs=$(mktemp -d)
    run_bundle Tools/bed/bed --memory 12288 --timeout 3600 -- "$@" "$root/$test_bundle" \
        --filter "$heavy" --skip "$boot_skip" >"$logs/heavy" 2>&1 &
    first=$!
    run_bundle Tools/bed/bed --memory 5120 --timeout 3600 -- "$@" "$root/$test_bundle" \
        --filter '^BootTests\.' --skip "$heavy|$boot_skip" 2>&1 | tee "$logs/light" || status=1
    wait "$first" || status=1
    cat "$logs/heavy"
    # Where only the end of the output is kept, both beds' failures are in it.
    if ((status)); then
        say "what failed"
        grep -hE '✘|recorded an issue|↳|^bed:' "$logs/light" "$logs/heavy" | cut -c1-400 | tail -n 60 || true
    fi >&2
    rm -rf "$logs"
    return "$status"
}
