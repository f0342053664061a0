#!/bin/bash
# A suite over the nodes of a Slurm cluster: copy, change what is marked, and `sbatch` it from Lockstep's folder, which
# all nodes must see. A job that ran into its time goes on where it ended: submit it again.
#SBATCH --job-name=lockstep
#SBATCH --nodes=2                 # <- yours
#SBATCH --ntasks-per-node=8       # <- ranks on a node: its GPUs, or cores over threads of a rank
#SBATCH --time=04:00:00           # <- yours
#SBATCH --signal=B:TERM@120       # two minutes before that the sweep is told to end with the plan at hand
#SBATCH --output=lockstep-%j.log
##SBATCH --gpus-per-node=8        # <- with GPUs, and then device and comm below
set -euo pipefail

# module load gcc/12 openmpi hdf5  # <- what your cluster calls them; `make deps` says what is missing
suite=suites/scaling.toml         # <- yours
out=${SCRATCH:-$HOME}/lockstep-scaling   # kept: the record, and what going on takes

# --input=0: standard input is rank 0's alone. --mpi: what `srun --mpi=list` offers and your MPI was built for.
launch='srun --mpi=pmix --input=0 --kill-on-bad-exit=1 -n {ranks}'
options=(--launch "$launch" --limit-ranks "$SLURM_NTASKS" --retry)  # what a job's end cut off is no plan's fault
# options+=(--device cuda --comm nccl)

make -j "$(nproc)"
build/lockstep sweep "$suite" --out "$out" "${options[@]}" &
sweep=$!
trap 'kill -TERM "$sweep"' TERM
status=0
wait "$sweep" || status=$?
while kill -0 "$sweep" 2>/dev/null; do  # the signal ended the waiting, not the sweep
    status=0
    wait "$sweep" || status=$?
done
make report OUT="$out" || true    # of an invalid sweep too: it says what failed
exit $status
