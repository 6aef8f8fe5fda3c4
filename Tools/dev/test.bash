# All that CI runs. Sourced by ./dev.

test_bundle=.build/debug/swiftletPackageTests.xctest

# Runs the compiled bundle itself: `swift test` costs 24 s in the bed.
run_bundle() { "$@" --testing-library swift-testing; }

run_tests() {
    need_swift
    need_packages
    say "format and scripts"
    format --check
    # shellcheck disable=SC2046  # the list of scripts has no spaces in it
    shellcheck -x -P SCRIPTDIR $(git grep -lE '^#!.*(bash|sh)$' -- ':!*.swift' ':!*.md')
    say "building tests"
    swift build --build-tests --quiet
    say "unit tests"
    run_bundle "$root/$test_bundle" --skip '^BootTests\.'
    [[ ${1:-} == --unit ]] && return
    # The same inputs each time, so that a failure is the fault of a change.
    run_fuzzers --runs 10000
    build_release
    say "boot tests on: $(Tools/bed/bed --which)"
    Tools/guest/kernels
    export SWIFTLET_VMM=$root/$release/swiftlet-vmm
    export SWIFTLET_GUEST_DIR=${SWIFTLET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/swiftlet}/guest
    local version
    for version in 6.1 6.12 generic; do
        Tools/guest/initramfs "$version" "$SWIFTLET_GUEST_DIR/initramfs-$version"
    done
    run_boot_tests
}

# Two beds side by side, for each keeps to one CPU (docs/TESTING-BED.md). The first has the
# memory that an 8 GiB guest needs, and BadInputTests, which look for interfaces left behind and
# so must not run beside the automatic names of NetworkTests.
run_boot_tests() {
    local heavy='^BootTests\.(MemoryTests|ProcessorTests|BootMatrixTests|LifecycleTests|BadInputTests)'
    local logs status=0 first
    logs=$(mktemp -d)
    run_bundle Tools/bed/bed --memory 12288 --timeout 2400 -- "$root/$test_bundle" \
        --filter "$heavy" >"$logs/heavy" 2>&1 &
    first=$!
    run_bundle Tools/bed/bed --memory 5120 --timeout 2400 -- "$root/$test_bundle" \
        --filter '^BootTests\.' --skip "$heavy" 2>&1 || status=1
    wait "$first" || status=1
    cat "$logs/heavy"
    rm -rf "$logs"
    return "$status"
}
