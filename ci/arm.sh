#!/usr/bin/env bash
# Holds the kernels of 64-bit Arm to the plain ones, bit for bit, under QEMU on x86-64.
#   ci/arm.sh      builds build-arm/test_simd and runs it; exit status 77 where a cross-compiler or qemu cannot be had
# What an emulator cannot show is how fast they are, and an Arm's own order of memory accesses.
set -euo pipefail
cd "$(dirname "$0")/.."
build=build-arm cxx=aarch64-linux-gnu-g++ gtest=/usr/src/googletest/googletest
if [[ $(uname -m) == aarch64 ]]; then
    echo "this machine is an Arm, and its tests are those of 'make test'"
    exit 77
fi
emulator() { command -v qemu-aarch64 || command -v qemu-aarch64-static; }
has_all() { command -v $cxx && emulator && [[ -f $gtest/src/gtest-all.cc ]]; } >/dev/null
has_all || ci/deps.sh install g++-aarch64-linux-gnu qemu-user googletest || true
if ! has_all; then
    echo "no Arm: it takes Debian's g++-aarch64-linux-gnu, qemu-user and googletest"
    exit 77
fi

# The headers of this machine's libraries will do, behind the cross-compiler's own, and no library but GoogleTest.
include='-idirafter /usr/include -DFMT_HEADER_ONLY'
mkdir -p $build
printf '%s\n' 'HDF5_CFLAGS :=' 'HDF5_LIBS :=' 'MPI_LIBS :=' 'NVCC :=' >$build/deps.mk
${MAKE:-make} B=$build CXX=$cxx EXTRA="$include -static" GTEST_SOURCE=$gtest $build/test_simd
# In parts, each core taking the next, the last first, for a long test is in one of them; three tests of long attention
# take longer than all others.
long=SimdBf16.LongAttentionWhoseGradientOfQueriesIsMadeAlone
long+=:SimdAttention.EqualsPlainOverBlocksOfWideHeads:SimdAttention.EqualsPlainWhereScoresFillTheScratch
GTEST_TOTAL_SHARDS=$((4 * $(nproc)))
export GTEST_BRIEF=1 GTEST_FILTER=-$long GTEST_TOTAL_SHARDS
seq $((GTEST_TOTAL_SHARDS - 1)) -1 0 |
    xargs -P "$(nproc)" -I{} env GTEST_SHARD_INDEX={} timeout 900 "$(emulator)" $build/test_simd | tee $build/said
grep -qE '^\[  PASSED  \] [1-9][0-9]* tests?\.' $build/said  # not none
