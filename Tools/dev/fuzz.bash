# Fuzzing. Sourced by ./dev.

fuzzer=Fuzz/.build/release/swiftlet-fuzz
fuzz_cache=${SWIFTLET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/swiftlet}/fuzz

# An input of 32 KiB is more than the largest seed; 30 s are a hang, on a busy machine too.
readonly fuzz_flags=(-max_len=32768 -timeout=30 -rss_limit_mb=512 -malloc_limit_mb=256 -verbosity=1)

# Builds the fuzzers and fuzzes each TARGET (default: all), two side by side, for `--seconds N`, or
# with `--runs N` for that many inputs. The corpus stays in the cache and grows; with `--seed N` it
# begins anew, with the same inputs each time. What makes a target fail goes to Fuzz/findings.
# `crash N` kills N processes that write to images instead.
run_fuzzers() {
    local seconds=60 runs='' seed='' targets=() running=0 target failed=0
    if [[ ${1:-} == crash ]]; then
        shift
        build_fuzzers
        "$fuzzer" crash "${1:-1000}" "${2:-$RANDOM}"
        return
    fi
    while (($#)); do
        case $1 in
            --seconds) seconds=${2:?--seconds needs a number}; shift ;;
            --runs) runs=${2:?--runs needs a number}; shift ;;
            --seed) seed=${2:?--seed needs a number}; shift ;;
            -*) printf '%s\n' "./dev fuzz: unknown option '$1'" >&2; return 2 ;;
            *) targets+=("$1") ;;
        esac
        shift
    done
    build_fuzzers
    ((${#targets[@]})) || mapfile -t targets < <("$fuzzer" list)
    local length=(-max_total_time="$seconds") how="$seconds s each"
    if [[ -n $runs ]]; then length=(-runs="$runs") how="$runs inputs each"; fi
    [[ -z $seed ]] || length+=(-seed="$seed")
    say "fuzzing ${targets[*]}, $how"
    for target in "${targets[@]}"; do
        fuzz "$target" "${length[@]}" &
        if ((++running == 2)); then
            wait -n || failed=1
            running=1
        fi
    done
    while ((running--)); do wait -n || failed=1; done
    return "$failed"
}

build_fuzzers() {
    need_swift
    need_packages
    say "building the fuzzers"
    swift build --package-path Fuzz -c release --quiet
}

# fuzz TARGET FLAG...
fuzz() {
    local target=$1 directory=$fuzz_cache/$1 log
    shift
    # With a seed, it begins with the target's own inputs alone, whatever was found before.
    case $* in *-seed=*) directory=$(mktemp -d) ;; esac
    export SWIFTLET_FUZZ=$target
    # libFuzzer itself has to see the trap, to save what led to it.
    export SWIFT_BACKTRACE=enable=no
    mkdir -p "$directory/corpus" "$directory/seeds" Fuzz/findings
    "$fuzzer" seed "$directory/seeds"
    mv "$directory/seeds/dictionary" "$directory/dictionary"
    log=$directory/log
    if "$fuzzer" "${fuzz_flags[@]}" "$@" -dict="$directory/dictionary" \
        -artifact_prefix="Fuzz/findings/$target-" "$directory/corpus" "$directory/seeds" \
        >"$log" 2>&1; then
        printf '%s: %s\n' "$target" "$(grep '^Done' "$log" || tail -n 1 "$log")"
        return
    fi
    local finding
    finding=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
    {
        grep -E 'Fatal error|ERROR: libFuzzer|^SUMMARY' "$log" || tail -n 20 "$log"
        printf '%s failed; the log is %s\n' "$target" "$log"
        [[ -z $finding ]] ||
            printf 'again: SWIFTLET_FUZZ=%s %s %s\n' "$target" "$fuzzer" "$finding"
    } >&2
    return 1
}
