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
    shellcheck -x $(git ls-files | grep -vE '\.(swift|md|yml|json|svg)$' | xargs grep -lE '^#!.*(bash|sh)$')
    say "building tests"
    swift build --build-tests --quiet
    say "unit tests"
    run_bundle "$root/$test_bundle" --skip '^BootTests\.'
    [[ ${1:-} == --unit ]] && return
    build_release
    say "boot tests on: $(Tools/bed/bed --which)"
    Tools/guest/kernels
    export SWIFTLET_VMM=$root/$release/swiftlet-vmm
    export SWIFTLET_GUEST_DIR=${SWIFTLET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/swiftlet}/guest
    local version
    for version in 6.1 6.12 generic; do
        Tools/guest/initramfs "$version" "$SWIFTLET_GUEST_DIR/initramfs-$version"
    done
    run_bundle Tools/bed/bed --memory 12288 --timeout 2400 -- "$root/$test_bundle" --filter '^BootTests\.'
}
