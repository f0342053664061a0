#!/usr/bin/env bash
# All that a GPU is asked, in one go and without a network, from programs that `make gpu-pack` packed:
#   ci/gpu_check.sh build/gpu build/gpu-check
# Tables, logs and the sweep's HDF5 go to the second folder. Ends in one line a part; fails if a part does.
set -uo pipefail
cd "$(dirname "$0")/.."
bin=$1 out=$2
seconds=${GPU_CHECK_SECONDS:-450}  # of all parts together
parts=${GPU_CHECK_PARTS:-.*}       # which of them: a regular expression of whole names
mkdir -p "$out"
started=$SECONDS summary=() status=0

# part NAME SECONDS COMMAND...: one part, no longer than it may and than there is time.
part() {
    local name=$1 most=$2 left=$((seconds - SECONDS + started)) begin=$SECONDS ended=0
    shift 2
    [[ $name =~ ^($parts)$ ]] || return 0
    ((left >= 5)) || { summary+=("skipped $name: no time left") && return; }
    timeout -k 5 $((most < left ? most : left)) "$@" >"$out/$name.log" 2>&1 || ended=$?
    tail -n 4 "$out/$name.log"
    case $ended in
        0) summary+=("ok      $name, $((SECONDS - begin)) s") ;;
        124 | 137) summary+=("late    $name, $((SECONDS - begin)) s") && status=1 ;;
        *) summary+=("FAILED  $name (status $ended), $((SECONDS - begin)) s: $out/$name.log") && status=1 ;;
    esac
}

for program in lockstep test_cuda lockstep_cuda.so; do
    [[ -e $bin/$program ]] || { echo "gpu-check: $bin/$program is missing; run make gpu-pack where the project builds" >&2; exit 2; }
done
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader >"$out/gpu.txt" 2>&1 ||
    { echo "gpu-check: no GPU: nvidia-smi says: $(head -c 200 "$out/gpu.txt")" >&2; exit 2; }
cat "$out/gpu.txt"
run=(--model suites/models/gate-tiny.json --data datasets/excerpt-v509.tok --seq 32)
usual=(--batch 16 --steps 3)

# What matters most comes first: the seconds may end before the parts do.
bf16=(--dtype bf16 --device cuda)
# 2.8 B parameters, of which an H100 holds everything for eight sequences: where `lockstep plan` sees the most to win.
large=(suites/models/llama-3-8b-8-layers.json --batch 32 --seq 2048 --steps 5)
micro=8
micro_pytorch=4  # whose logits are float32, too, and whose step compiles anew for each size it tries
small=(suites/models/tinyllama-1.1b.json --batch 32 --seq 2048 --steps 5)
peak=${GPU_CHECK_PEAK:-989.4}  # TFLOP/s of an H100 or H200 SXM in bf16, dense (NVIDIA's data sheets)
part hash 60 "$bin/lockstep" train "${run[@]}" "${usual[@]}" --plan "dp=2 tp=2 pp=2 zero=1 ckpt=full" --device cuda --check
none_skipped() {  # COMMAND...: a test that finds no GPU is skipped, which here is a failure
    local said ended=0
    said=$("$@") || ended=$?
    echo "$said"
    [[ $ended == 0 && $said != *SKIPPED* ]]
}
export -f none_skipped
part kernels 120 bash -c 'none_skipped "$@"' _ "$bin/test_cuda" --gtest_filter='-*Warpgroups*'
part fast 60 "$bin/lockstep" train "${run[@]}" "${usual[@]}" --plan "dp=2" --device cuda --fast --check
part bf16 60 "$bin/lockstep" train "${run[@]}" "${usual[@]}" --plan "dp=2 tp=2" "${bf16[@]}" --check
part kernels-warpgroups 30 bash -c 'none_skipped "$@"' _ "$bin/test_cuda" --gtest_filter='*Warpgroups*'
part bf16-fast 60 "$bin/lockstep" train "${run[@]}" "${usual[@]}" --plan "dp=2 tp=2" "${bf16[@]}" --fast --check
# Heads of 64, which fast attention takes.
flash=("$bin/lockstep" train --model suites/models/smol-10m.json --data datasets/excerpt-v509.tok --batch 1 --seq 200 --steps 1
    --fast --check)
part flash 90 "${flash[@]}" "${bf16[@]}"
part flash-float32 60 env LOCKSTEP_ATTENTION=warps "${flash[@]}" --device cuda  # refused where it cannot be had
# What labels do not count makes the loss's scale another one in every step, and graphs must bear it.
part graphs 60 "$bin/lockstep" train "${run[@]}" --batch 16 --steps 5 --plan "dp=2 tp=2 zero=1" --device cuda --graphs --check
# A training that begins on the GPU, goes on on the processor and ends on the GPU: the same bits.
goes_on() {  # COMMAND...
    local state ended=0
    state=$(mktemp -d)
    { "$@" --steps 2 --plan "dp=2 zero=1" --device cuda --state "$state" &&
        "$@" --steps 3 --plan "tp=2 zero=2 dp=2" --resume "$state" --state "$state" --check &&
        "$@" --steps 4 --plan "pp=2 offload=optimizer" --device cuda --resume "$state" --check; } || ended=$?
    rm -rf "$state"
    return $ended
}
export -f goes_on
part resume 60 bash -c 'goes_on "$@"' _ "$bin/lockstep" train "${run[@]}" --batch 16 --total 4
part context 60 "$bin/lockstep" train "${run[@]}" --batch 8 --segments 2 --plan "cp=2 dp=2 zero=3" --device cuda --check
timed=("$bin/lockstep" time --data datasets/excerpt-v509.tok "${bf16[@]}" --peak "$peak")
part speed 150 "${timed[@]}" --model "${large[@]}" --plan "micro=$micro" --kernels --csv "$out/kernels.csv"
part speed-warpgroups 90 env LOCKSTEP_ATTENTION=warpgroups "${timed[@]}" --model "${large[@]}" --plan "micro=$micro" \
    --kernels --csv "$out/kernels-warpgroups.csv"
# More steps, for the first ones are tries: the head's products are four a step, of 16 to be timed.
part speed-timed 120 env LOCKSTEP_MATMUL=timed "${timed[@]}" --model "${large[@]:0:5}" --steps 12 --plan "micro=$micro" \
    --kernels --csv "$out/kernels-timed.csv"
if python3 -c 'import torch' 2>/dev/null; then
    part pytorch 120 python3 suites/peers/pytorch_step.py "${large[@]}" --micro "$micro_pytorch" --peak "$peak"
    [[ ! -s $out/kernels.csv ]] ||
        part pytorch-kernels 60 python3 suites/peers/pytorch_kernels.py "$out/kernels.csv" --csv "$out/kernels-pytorch.csv"
else
    summary+=("skipped pytorch: there is none here")
fi
part gate 200 "$bin/lockstep" gate suites/gpu.toml --junit "$out/gate.xml"
if sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null); then
    # A step of real plans in real device memory: cudaMalloc's bounds are what memcheck knows.
    part sanitizer 120 "$sanitizer" --error-exitcode 9 "$bin/lockstep" train "${run[@]}" --batch 4 --steps 1 \
        --plan "dp=2 tp=2" --device cuda
    part races 60 "$sanitizer" --tool racecheck --error-exitcode 9 "$bin/lockstep" train "${run[@]}" --batch 1 --steps 1 \
        --device cuda
else
    summary+=("skipped sanitizer: no compute-sanitizer here")
fi
part sweep 100 "$bin/lockstep" sweep suites/gpu.toml --only "tp=1 pp=1" --out "$out/sweep"
part speed-graphs 90 "${timed[@]}" --model "${large[@]}" --plan "micro=$micro" --graphs
part speed-1.1b 60 "${timed[@]}" --model "${small[@]}" --plan "micro=16"
float32=("$bin/lockstep" time --data datasets/excerpt-v509.tok --device cuda --model "${small[@]:0:1}" --batch 8 --seq 2048 --steps 3
    --plan "micro=4" --kernels)
part speed-float32 60 env LOCKSTEP_ATTENTION=warps "${float32[@]}" --csv "$out/kernels-float32.csv"
part speed-float32-exact 90 env LOCKSTEP_ATTENTION=exact "${float32[@]}"
# NCCL: one process a GPU, by the Open MPI that was packed along, with the NCCL that lies here, be it PyTorch's.
why_no_nccl=''
mpi=$PWD/$bin/mpi/usr
if [[ ! -e $bin/lockstep_nccl.so ]]; then why_no_nccl="it was built without NCCL or MPI"
elif [[ ! -x $mpi/bin/mpirun ]]; then why_no_nccl="no Open MPI was packed along"
elif ! ldd "$bin/lockstep_nccl.so" | grep -q 'libnccl.so.2 => /'; then
    nccl=$(python3 -c 'import importlib.util as u; print(list(u.find_spec("nvidia.nccl").submodule_search_locations)[0])' 2>/dev/null)/lib
    [[ -e $nccl/libnccl.so.2 ]] || nccl=$(dirname "$(find /usr /opt -name libnccl.so.2 -print -quit 2>/dev/null)")
    [[ -e $nccl/libnccl.so.2 ]] && export LD_LIBRARY_PATH=$nccl${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} || why_no_nccl="no libnccl.so.2 is here"
fi
mpirun="mpirun --oversubscribe -n"
with_mpi() {  # COMMAND...
    local lib etc=$mpi/../etc/openmpi
    lib=$(echo "$mpi"/lib/*-linux-gnu)
    OPAL_PREFIX=$mpi OPAL_SYSCONFDIR=$etc OPAL_LIBDIR=$lib/openmpi/lib PATH=$mpi/bin:$PATH OMPI_MCA_plm=isolated \
        LD_LIBRARY_PATH=$lib:$mpi/../lib/${lib##*/}:$lib/openmpi/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} \
        OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 LOCKSTEP_NCCL_PATIENCE=20 "$@"
}
export -f with_mpi
export mpi
gpus=$(wc -l <"$out/gpu.txt")
for ranks in 8 4 2; do ((ranks > gpus)) || break; done
if [[ -n $why_no_nccl ]]; then
    summary+=("skipped nccl: $why_no_nccl")
else
    smoke=("$bin/lockstep" sweep suites/smoke.toml --device cuda --comm nccl --launch "$mpirun {ranks}")
    part nccl-1 60 bash -c 'with_mpi "$@"' _ "${smoke[@]}" --limit-ranks 1
    if ((gpus == 1)); then
        summary+=("skipped nccl between GPUs: there is one")
    else
        part "nccl-$ranks" 150 bash -c 'with_mpi "$@"' _ "${smoke[@]}" --limit-ranks "$ranks" --out "$out/sweep-nccl"
        part nccl-fast 60 bash -c 'with_mpi "$@"' _ $mpirun "$ranks" "$bin/lockstep" train "${run[@]}" "${usual[@]}" \
            --plan "dp=$ranks" --device cuda --comm nccl --fast --check
        part nccl-calibrate 120 bash -c 'with_mpi "$@"' _ $mpirun "$ranks" "$bin/lockstep" calibrate --device cuda \
            --comm nccl --out "$out/gpus.toml"
        part nccl-speed 90 bash -c 'with_mpi "$@"' _ $mpirun "$ranks" "${timed[@]}" --model "${large[@]}" \
            --plan "dp=$ranks micro=2 zero=1" --comm nccl
    fi
fi
# This GPU as a cluster of one, and how far the planner's seconds on it are from those measured above and here.
part calibrate 120 "$bin/lockstep" calibrate --device cuda --out "$out/gpu.toml"
if [[ -s $out/gpu.toml ]]; then
    part predicted 20 "$bin/lockstep" plan --cluster "$out/gpu.toml" --model "${large[@]}" --explain "micro=$micro" --kernels
    part check-times 150 "$bin/lockstep" plan --cluster "$out/gpu.toml" --model suites/models/smol-100m.json --batch 32 \
        --seq 1024 --check-times --data datasets/excerpt-v509.tok --device cuda --plans 6
fi
echo "== gpu-check, $((SECONDS - started)) s"
printf '%s\n' "${summary[@]}" | tee "$out/summary.txt"
exit $status
