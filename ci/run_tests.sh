#!/usr/bin/env bash
# Builds and runs every test, and ends in one line: N passed, N failed[, N skipped].
#   ci/run_tests.sh      the test programs and the structure checks; `make test`
#   ci/run_tests.sh ci   the same, and formatting, sanitizers and the gates on the smoke suite; `make ci`
set -uo pipefail
cd "$(dirname "$0")/.."
export B=${B:-build}
make=${MAKE:-make}
mapfile -t programs < <("$make" -s programs)
results=$B/results
passed=0 failed=0 skipped=0
failures=()
rm -rf "$results"
mkdir -p "$results"

# heading NAME: what comes now, and how long all of it has taken so far.
heading() { printf '== %s (at %d:%02d)\n' "$1" $((SECONDS / 60)) $((SECONDS % 60)); }

fail() {
    failed=$((failed + 1))
    failures+=("$1")
}

# check NAME COMMAND...: one test; its output is shown when it fails. Exit status 77 means skipped.
check() {
    local status=0
    "${@:2}" >"$results/check.log" 2>&1 </dev/null || status=$?
    case $status in
        0) passed=$((passed + 1)) && echo "  ok   $1" ;;
        77) skipped=$((skipped + 1)) && echo "  skip $1: $(tail -n 1 "$results/check.log")" ;;
        *) cat "$results/check.log"
           echo "  FAIL $1"
           fail "$1" ;;
    esac
}

# run PROGRAM...: their tests, each program's in as many parts as there are cores, which all take from one queue. Those
# named first come last, for of the alphabet they are the short ones, and a long one at the end leaves cores idle. Then
# test_mpi by itself, for its jobs fill the machine as it is; they also wait for each other, and $beside, a command, takes
# what they leave. Then adds up what their GoogleTest reports count. No report (a crash, a deadlock), or a bad end with
# nothing failed in the report (a sanitizer's finding), counts as one failure more. Shows all but the passes.
run() {
    local parts=$(nproc) part program
    ((parts <= 4)) || parts=4
    for program in "$@"; do
        [[ $program != *test_mpi ]] || continue
        for ((part = 0; part < parts; ++part)); do echo "$program $part $parts"; done
    done | tac | xargs -r -P "$parts" -L 1 bash -c 'run_part "$@"' _
    for program in "$@"; do
        if [[ $program == *test_mpi ]]; then
            ${beside:-:} &
            run_part "$program" 0 1
            wait
        fi
        echo "-- $program"
        for part in "$results/${program//\//_}".*.status; do
            count "$program" "$(<"$part")" "${part%.status}"
        done
    done
}

# run_part PROGRAM PART PARTS: leaves a report, a log and the exit status.
run_part() {
    local name=$results/${1//\//_}.$2 status=0 begin=$SECONDS
    GTEST_TOTAL_SHARDS=$3 GTEST_SHARD_INDEX=$2 timeout --foreground 1800 \
        "$1" --gtest_output="xml:$name.xml" </dev/null >"$name.log" 2>&1 || status=$?
    echo "$status" >"$name.status"
    echo "  $1, part $(($2 + 1)) of $3: $((SECONDS - begin)) s"
}
export -f run_part
export results

# count PROGRAM STATUS REPORT: what one part of a program's tests came to.
count() {
    local name=$3 status=$2 tests bad=0 not_run counts
    grep -vE '^(\[( RUN|       OK |-----|=====.*Running)|Running main|Note: |$)' "$name.log"
    if [[ -s $name.xml ]]; then
        counts=$(grep -m1 '<testsuites ' "$name.xml")
        tests=$(sed -E 's/.* tests="([0-9]+)".*/\1/' <<<"$counts")
        bad=$(sed -E 's/.* failures="([0-9]+)".*/\1/' <<<"$counts")
        not_run=$(grep -cE '<testcase .*(result="skipped"|status="notrun")' "$name.xml")
        passed=$((passed + tests - bad - not_run))
        failed=$((failed + bad))
        skipped=$((skipped + not_run))
        ((bad == 0)) || failures+=("$bad in $1")
    fi
    if [[ ! -s $name.xml ]]; then
        fail "$1 (exit status $status in $(grep -oP '^\[ RUN +\] \K.*' "$name.log" | tail -n 1))"
    elif ((status != 0 && bad == 0)); then
        fail "$1 (exit status $status after its tests passed)"
    fi
}

# build_and_run PROGRAM...: whatever builds is run, so that one broken layer does not hide the others.
# The folder a program lies in is its build folder. $first: targets to begin with, that take longest.
build_and_run() {
    local program built=()
    # shellcheck disable=SC2086  # a list of names
    "$make" -k B="$(dirname "$1")" ${first:-} "$@" </dev/null
    for program in "$@"; do
        if "$make" -s B="$(dirname "$program")" "$program" >/dev/null 2>&1 </dev/null; then
            built+=("$program")
        else
            fail "$program (does not build)"
        fi
    done
    wait  # for the page's Python
    heading "tests"
    run "${built[@]}"
}

smoke_gate() { "$make" gate SUITE=suites/smoke.toml; }

# with_threads, with_addresses COMMAND...: for a build with the thread sanitizer, or with those of addresses and undefined
# behaviour. The build without judges warnings: GCC 12, with a sanitizer, sees some in its own headers. Plain kernels may run
# on any processor, so they call a function for each fma: not here. What null and object-size would say, the address
# sanitizer says; they take a third of the build.
fma=$(grep -qw fma /proc/cpuinfo 2>/dev/null && echo -mfma)
with_threads() { WERROR='' OPT=-O1 EXTRA="-fsanitize=thread" "$@"; }
with_addresses() {
    WERROR='' OPT=-O1 EXTRA="-fsanitize=address,undefined -fno-sanitize=null,object-size,vptr -fno-sanitize-recover=all $fma" "$@"
}
of_threads=(build-tsan/test_comm)
of_addresses=(build-asan/test_comm build-asan/test_kernels)
# Both builds, if nothing else wants the cores; what fails is made again, and told, when its turn comes.
build_sanitized() {
    with_threads nice "$make" -k B=build-tsan "${of_threads[@]}" &&
        with_addresses nice "$make" -k B=build-asan "${of_addresses[@]}"
} >"$results/sanitized.log" 2>&1 </dev/null

# What is built but once may be built of larger handfuls.
[[ ${1:-} != ci ]] || export HANDFUL=${HANDFUL:-12}
# The page's tests skip where its Python is missing; a continuous run should not. It is made while the programs are.
[[ ${1:-} != ci ]] || { ci/venv.sh report >"$results/venv.log" 2>&1 || echo "no Python for the page: its tests will skip"; } &

if [[ ${#programs[@]} == 0 ]]; then
    fail "no tests: suites/tests holds no *_test.cpp"
else
    beside=$([[ ${1:-} != ci ]] || echo build_sanitized) first="cuda nccl" build_and_run "${programs[@]}"
fi
heading "structure"
for name in $(ci/structure.py --list); do
    check "$name" ci/structure.py "$name"
done

if [[ ${1:-} == ci ]]; then
    heading "formatting"
    check "formatting" ci/format.sh --check
    heading "thread sanitizer: build"
    # A kernel of one thread, over a thousand ranks' numbers, has nothing to be found; nor have sixteen ranks what eight
    # have not.
    GTEST_FILTER=-Ordered.TheKernelGivesTheBitsOfTheTree:Members/Values.*/*16 with_threads build_and_run "${of_threads[@]}"
    heading "address and undefined behaviour sanitizers: build"
    # Some tests repeat attention over many block sizes, over thousands of tokens, or over 400 of them thread by thread of
    # a GPU: minutes under a sanitizer for lines others run too.
    long=SimdAttention.EqualsPlainOverBlocksOfWideHeads:SimdAttention.EqualsPlainWhereScoresFillTheScratch
    GTEST_FILTER=-$long:SimdBf16.Long*:Shapes/Flash.*/6:Shapes/Flash.*Partial*/4:Shapes/Flash.*Partial*/5 \
        with_addresses build_and_run "${of_addresses[@]}"
    heading "another processor"
    check "Arm's kernels, emulated, give the same bits" ci/arm.sh
    heading "smoke suite"
    check "every plan of the smoke suite passes all gates" smoke_gate
fi

((${#failures[@]} == 0)) || printf 'failed: %s\n' "${failures[@]}"
echo "$passed passed, $failed failed$( ((skipped == 0)) || echo ", $skipped skipped")"
((failed == 0))
