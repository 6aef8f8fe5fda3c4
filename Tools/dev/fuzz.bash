# Fuzzing. Sourced by ./dev.

fuzzer=Fuzz/.build/release/swiftlet-fuzz
fuzz_cache=${SWIFTLET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/swiftlet}/fuzz

# An input of 32 KiB is more than the largest seed; 30 s are a hang, on a busy machine too. Half of
# the resident memory is AddressSanitizer's.
readonly fuzz_flags=(
    -max_len=32768 -timeout=30 -rss_limit_mb=1536 -malloc_limit_mb=256 -verbosity=1
    -print_final_stats=1
)

# Builds the fuzzers and fuzzes each TARGET (default: all), two side by side, for `--seconds N`, or
# with `--runs N` for that many inputs. The corpus stays in the cache and grows; with `--seed N` it
# begins anew, with the same inputs each time. What makes a target fail goes to Fuzz/findings.
# A line for each run goes to the cache's `ledger`: date, target, CPU seconds, inputs, coverage.
# `crash N` kills N processes that write to images instead.
run_fuzzers() {
    local seconds=60 runs='' seed='' targets=() running=0 target failed=0
    if [[ ${1:-} == crash ]]; then
        shift
        build_fuzzers
        crash_writers "${1:-1000}" "${2:-$RANDOM}"
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

# crash_writers N SEED. Foundation's Process, which starts them, leaks a few bytes at its end.
crash_writers() {
    ASAN_OPTIONS=detect_leaks=0 "$fuzzer" crash "$@"
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
    local status=0 cpu finding TIMEFORMAT='%U %S'
    cpu=$({
        time "$fuzzer" "${fuzz_flags[@]}" "$@" -dict="$directory/dictionary" \
            -artifact_prefix="Fuzz/findings/$target-" "$directory/corpus" "$directory/seeds" \
            >"$log" 2>&1
    } 2>&1) || status=$?
    report_fuzzing "$target" "$log" "$cpu"
    ((status)) || return 0
    finding=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
    {
        grep -E 'Fatal error|ERROR: libFuzzer|^SUMMARY' "$log" || tail -n 20 "$log"
        printf '%s failed; the log is %s\n' "$target" "$log"
        [[ -z $finding ]] ||
            printf 'again: SWIFTLET_FUZZ=%s %s %s\n' "$target" "$fuzzer" "$finding"
    } >&2
    return 1
}

# report_fuzzing TARGET LOG "USER SYSTEM": what was run and what it reached, to the ledger too.
report_fuzzing() {
    local line
    line=$(awk -v target="$1" -v cpu="$3" '
        /inline 8-bit counters/ { sub(/.*\(/, ""); edges = $1 }
        / cov: / { for (i = 1; i < NF; i++) { if ($i == "cov:") cov = $(i + 1)
            if ($i == "ft:") features = $(i + 1); if ($i == "corp:") corpus = $(i + 1) } }
        /stat::number_of_executed_units/ { runs = $2 }
        END { split(cpu, time); seconds = time[1] + time[2]
            printf "%s: %d inputs in %.0f CPU s (%.0f/s), %d of %d edges, %d features, corpus %s\n",
                target, runs, seconds, runs / (seconds ? seconds : 1), cov, edges, features, corpus }
    ' "$2")
    printf '%s\n' "$line"
    printf '%s %s\n' "$(date -u +%FT%TZ)" "$line" >>"$fuzz_cache/ledger"
}
