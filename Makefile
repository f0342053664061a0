# Lockstep. `make` builds; `make help` lists the targets.
MAKEFLAGS += --no-builtin-rules --no-print-directory
ifeq ($(MAKELEVEL),0)  # in parallel; a -j on the command line wins
MAKEFLAGS += -j$(shell nproc)
endif
SHELL := /bin/bash
B ?= build
ifeq ($(origin CXX),default)
CXX := g++
endif
OPT ?= -O2
# g++ collects its garbage a tenth of its time; left alone until there is 1 GB of it, the largest sources take 100 MB
# more each. clang knows no such word, nor GCC's own pragmas.
gnu := $(if $(findstring Free Software,$(shell $(CXX) --version 2>/dev/null)),--param ggc-min-heapsize=1000000)
# What GCC says of its own older versions' calls (psabi) is of no use to a program that is built whole, nor what GCC 13
# believes of bounds in fmt 9 (Ubuntu 24.04). A warning is an error with the compiler the project is written with; a newer
# one may know new warnings.
version := $(firstword $(subst ., ,$(shell $(CXX) -dumpversion 2>/dev/null)))
WERROR ?= $(if $(filter 12,$(version)),-Werror)
WARN := -Wall -Wextra -Wshadow -Wno-psabi $(if $(gnu),$(if $(filter 13,$(version)),-Wno-array-bounds)) $(WERROR) \
    $(if $(gnu),,-Wno-unknown-pragmas -Wno-unknown-warning-option)

.PHONY: all
all: $B/lockstep mpi cuda nccl  ## build the lockstep program (the default; B=folder EXTRA=flags OPT=-O2 V=1)

# Dependencies first: this file is made by installing what is missing, and says where HDF5 is.
ifneq ($(filter-out help clean format deps sources programs tokens report,$(or $(MAKECMDGOALS),all)),)
include $B/deps.mk
endif
$B/deps.mk: ci/deps.sh
	@CXX="$(CXX)" ci/deps.sh $@

CXXFLAGS := -std=c++20 $(OPT) -g1 -ffp-contract=off -fno-fast-math $(WARN) -pthread -I. $(EXTRA) $(HDF5_CFLAGS) $(HEADER_CFLAGS)
# -rdynamic: lockstep_mpi.so calls back into the program.
LDLIBS := $(HDF5_LIBS) $(HEADER_LIBS) -pthread -rdynamic -ldl

# A file's name says the instruction set it is compiled for; everything else runs anywhere.
isa_avx2   := -mavx2 -mfma $(OPT:-O2=-O3)
isa_avx512 := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mprefer-vector-width=512 $(OPT:-O2=-O3)
isa_neon   := $(OPT:-O2=-O3)
isa = $(isa_$(lastword $(subst _, ,$1)))
machine := $(firstword $(subst -, ,$(shell $(CXX) -dumpmachine 2>/dev/null)))
of_x86_64  := %_avx2.cpp %_avx512.cpp
of_aarch64 := %_neon.cpp
vector_src := $(of_x86_64) $(of_aarch64)
foreign    := $(filter-out $(of_$(machine)),$(vector_src))

# The layers, lowest first; adding a file changes no list.
kernels_src  := $(filter-out kernels/bench/% kernels/cuda/%,$(wildcard kernels/*.cpp kernels/*/*.cpp))
ref_src      := $(wildcard ref/*.cpp datasets/*.cpp)
mpi_src      := $(wildcard parallel/comm/mpi/*.cpp)
comm_src     := $(wildcard parallel/comm/*.cpp)
parallel_src := $(wildcard parallel/*.cpp $(foreach d,strategies price device trace,parallel/$d/*.cpp))
suites_src   := $(filter-out suites/main.cpp suites/mutants/% suites/tests/%, \
    $(wildcard suites/*.cpp suites/*/*.cpp suites/planner/*/*.cpp reports/*.cpp))
mutants_src  := $(wildcard suites/mutants/*.cpp)
bench_src    := $(wildcard kernels/bench/*.cpp)
test_src     := $(wildcard suites/tests/*_test.cpp)

# What reads and writes text, files and options, and what says when something is run: none of it takes time when it
# runs, so it compiles sooner instead, as tests do, and is linked last, so that of a template that others have too theirs
# is taken.
sooner := $(wildcard ref/config.cpp ref/safetensors.cpp $(patsubst %,suites/%.cpp,main here settings_list text_table \
    toml_file run/locate run/training_state planner/cluster planner/cluster_text planner/nearest_llama) \
    $(patsubst %,suites/%/*.cpp,commands sweep timing planner/answer planner/export planner/measure planner/published)) \
    $(filter-out reports/compare.cpp reports/h5.cpp reports/record.cpp,$(wildcard reports/*.cpp))

# Most of what the compiler does for one source it does for the next, so a handful of a folder's is compiled at once
# (HANDFUL=1: each by itself, so that one's next change is soon compiled): nothing in a folder is named twice. Apart is
# what has flags of its own, and what registers itself under names like its neighbours'. Tests of vector kernels and of
# bf16 are apart from others: test_cuda puts them through a GPU's kernels too.
HANDFUL ?= 6
apart    := reports/record.cpp $(wildcard parallel/strategies/*.cpp)
together := $(filter-out $(apart),$(comm_src) $(parallel_src) $(suites_src))
handfuls := $(shell printf '%s\n' $(patsubst %,sooner:%,$(filter $(sooner),$(together))) \
    $(patsubst %,handful:%,$(filter-out $(sooner),$(together))) $(test_src:%=test:%) | awk -F: -v n=$(HANDFUL) '{ name = $$2; sub(/[^\/]*$$/, $$1, name); split($$2, part, /[\/_]/) } \
    $$1 == "test" { name = "tests/" part[3] ($$2 ~ /kernels_(simd|bf16)_/ ? "-gpu" : "") } \
    $$1 == "test" || n > 1 { print name "-" int((count[name]++) / n) ":" $$2 }')
$(foreach h,$(handfuls),$(eval object_of_$(lastword $(subst :, ,$h)) := $B/obj/$(firstword $(subst :, ,$h)).o))
handful_names := $(sort $(foreach h,$(handfuls),$(firstword $(subst :, ,$h))))
obj = $(sort $(foreach f,$1,$(or $(object_of_$f),$B/obj/$(f:.cpp=.o))))
kernels_obj := $(call obj,$(filter-out $(foreign),$(kernels_src)))
ref_obj     := $(kernels_obj) $(call obj,$(ref_src))
comm_obj    := $(kernels_obj) $(call obj,$(comm_src))
every_obj   := $(ref_obj) $(call obj,$(comm_src) $(parallel_src) $(suites_src))

# One short line per step; V=1 shows the commands.
Q := $(if $(V),,@)
say = @$(if $(V),:,printf '  %-4s %s\n' $1 $2)

# Holds a text that objects depend on, and changes only when the text does.
define remember
$1: FORCE
	@mkdir -p $$(@D)
	@printf '%s\n' '$(subst ','\'',$2)' | cmp -s - $$@ || printf '%s\n' '$(subst ','\'',$2)' >$$@
endef
FORCE:
revision := $(or $(shell git describe --always --dirty --abbrev=12 2>/dev/null),unknown)
# git does not call a new source dirty, and it is in the program.
new_source := $(shell git ls-files --others -- $(foreach d,ref parallel kernels suites datasets reports,'$d/*.[ch]pp' '$d/*.cu') 2>/dev/null)
revision := $(revision)$(if $(filter-out %-dirty unknown,$(revision)),$(if $(new_source),-dirty))
$(eval $(call remember,$B/flags,$(CXX) $(CXXFLAGS) $(isa_avx2) $(isa_avx512) $(isa_neon)))
$(eval $(call remember,$B/revision,$(revision)))
# All that anything is linked from: what had a file that is gone is linked again, without it.
cuda_src := $(wildcard kernels/cuda/*.cu parallel/cuda/*.cu)
nccl_src := $(wildcard parallel/nccl/*.cu)
$(eval $(call remember,$B/files,$(sort $(kernels_src) $(ref_src) $(mpi_src) $(comm_src) $(parallel_src) $(suites_src) \
    $(mutants_src) $(bench_src) $(test_src) $(cuda_src) $(nccl_src))))
linked = $(filter %.o,$^)

# An object dates from the start of its compilation: a header saved meanwhile makes it again.
define compile
	$(call say,CXX,$<)
	@mkdir -p $(@D) && touch $@.start
	$Q$(CXX) $(gnu) $(CXXFLAGS) $(call isa,$*) $(COMMON) $(DEFINES) -MMD -MP -c -o $@ $<
	@touch -r $@.start $@
endef
$B/obj/%.o: %.cpp $B/flags
	$(compile)
$B/obj/%.o: $B/handfuls/%.cpp $B/flags
	$(compile)

# One test program per layer, so that a lower layer is tested while a higher one does not build: the files
# suites/tests/<layer>_*_test.cpp.
test_obj    = $(patsubst %,$B/obj/%.o,$(filter $(1:%=tests/%),$(handful_names)))
layers     := $(sort $(foreach n,$(filter tests/%,$(handful_names)),$(firstword $(subst -, ,$(notdir $n)))))
tests      := $(layers:%=$B/test_%)
define handful
$B/handfuls/$1.cpp: FORCE
	@mkdir -p $$(@D)
	@printf '#include "%s"\n' $2 | cmp -s - $$@ || printf '#include "%s"\n' $2 >$$@
endef
$(foreach n,$(handful_names),$(eval $(call handful,$n,$(patsubst $n:%,%,$(filter $n:%,$(handfuls))))))

sooner_obj := $(call obj,$(sooner))
all_obj     = $(filter-out $(sooner_obj),$(every_obj)) $(filter-out %/main.o,$(sooner_obj))
program_obj = $(all_obj) $B/obj/suites/main.o
# The GPU's kernels as loops are many fmas, with a call for each where the compiler may not use this machine's. With fma it
# takes 256-bit registers too, and GCC counts leaving them clean among what is expensive: code of SSE ran a hundred times
# slower behind them.
soon := $(if $(filter -O1 -O2,$(OPT)),-Og)
fma_here := $(if $(filter x86_64,$(machine)),$(shell grep -qw fma /proc/cpuinfo 2>/dev/null && \
    echo -mfma $(if $(gnu),-fexpensive-optimizations)))
$B/obj/tests/%.o $(sooner_obj): private CXXFLAGS += $(soon)
$B/obj/tests/%.o: private CXXFLAGS += $(fma_here) -Wno-shadow $(if $(WARN),-Wshadow=local)

# Headers that most files include are compiled once for each set of flags; where a compiler does not take that, it
# reads the text. Not for one instruction set's files: what they compile of a header, any processor might run.
# precompiled: name, header, objects.
define precompiled
$B/pch/$1/common.hpp.gch: $2 $B/flags
	$$(call say,PCH,$$<)
	@mkdir -p $$(@D) && cp $$< $$(@D)/common.hpp
	$$Q$$(CXX) $$(gnu) $$(CXXFLAGS) -x c++-header -o $$@ $$<
$3: private COMMON := -include $B/pch/$1/common.hpp
$3: $B/pch/$1/common.hpp.gch
endef
$B/pch/tests/% $B/pch/sooner/%: private CXXFLAGS += $(soon)
$B/pch/tests/%: private CXXFLAGS += $(fma_here)
$(eval $(call precompiled,program,kernels/common.hpp,$(call obj,$(filter-out $(vector_src) $(sooner), \
    $(kernels_src) $(ref_src) $(comm_src) $(parallel_src) $(suites_src) $(mutants_src)))))
$(eval $(call precompiled,sooner,kernels/common.hpp,$(sooner_obj)))
$(eval $(call precompiled,tests,suites/tests/common.hpp,$(call test_obj,%)))

# Only the record says how it was built, so that a commit rebuilds one file.
$B/obj/reports/record.o: DEFINES = -DLOCKSTEP_REVISION='"$(revision)"' -DLOCKSTEP_FLAGS='"$(strip $(CXXFLAGS))"'
$B/obj/reports/record.o: $B/revision

$B/lockstep: $(program_obj) $B/files
	$(call say,LINK,$@)
	$Q$(CXX) $(EXTRA) -o $@ $(linked) $(LDLIBS)

# The program with faults to be switched on; in a folder of its own, for every object has other code in it.
$B/lockstep_mutants: $(program_obj) $(call obj,$(mutants_src)) $B/files
	$(call say,LINK,$@)
	$Q$(CXX) $(EXTRA) -o $@ $(linked) $(LDLIBS)

# Only this shared object knows MPI; the program opens it when asked to, and does without it where MPI is not.
ifneq ($(MPI_LIBS),)
mpi_object := $B/lockstep_mpi.so
endif
$B/obj/parallel/comm/mpi/%.o: DEFINES = -fPIC $(MPI_CFLAGS)
$B/lockstep_mpi.so: $(call obj,$(mpi_src)) $B/files
	$(call say,LINK,$@)
	$Q$(CXX) $(EXTRA) -shared -o $@ $(linked) $(MPI_LIBS)

# Kernels of NVIDIA GPUs, in a shared object too: machine code for what this nvcc knows, and PTX for what comes.
# No contraction, IEEE division and square root, no flush to zero: kernels/EXACT.md.
cuda_obj := $(cuda_src:%.cu=$B/obj/%.cu.o)
ifneq ($(NVCC),)
cuda_object := $B/lockstep_cuda.so
endif
NVCCFLAGS := -std=c++20 -O2 -lineinfo --expt-relaxed-constexpr --extended-lambda -fmad=false -prec-div=true \
    -prec-sqrt=true -ftz=false $(CUDA_ARCHS) -I. -Xcompiler -fPIC,-ffp-contract=off,-Wall,-Wextra,-Wshadow \
    $(if $(WERROR),-Werror all-warnings)
$(eval $(call remember,$B/nvcc_flags,$(NVCC) $(NVCCFLAGS)))
# Hopper's own instructions are in no other GPU's code, so files named after it are compiled for it alone.
comma := ,
hopper_archs := $(if $(findstring sm_90,$(CUDA_ARCHS)),-gencode=arch=compute_90a$(comma)code=sm_90a -DLOCKSTEP_SM_90A)
$B/obj/kernels/cuda/hopper_%.cu.o: NVCCFLAGS := $(if $(hopper_archs),$(subst $(CUDA_ARCHS), \
    $(hopper_archs),$(NVCCFLAGS)),$(NVCCFLAGS))
$B/obj/%.cu.o: %.cu $B/nvcc_flags
	$(call say,NVCC,$<)
	@mkdir -p $(@D) && touch $@.start
	$Q$(NVCC) $(NVCCFLAGS) -MMD -MP -MF $(@:.o=.d) -c -o $@ $<
	@touch -r $@.start $@
$B/lockstep_cuda.so: $(cuda_obj) $B/files
	$(call say,LINK,$@)
	$Q$(NVCC) -shared -cudart static -Xlinker --exclude-libs=ALL -o $@ $(linked)

# NCCL's messages, in a third: a program with it does not start where NCCL is not. It finds NCCL where it was built, or
# beside itself.
ifneq ($(NCCL_FLAGS),)
nccl_object := $B/lockstep_nccl.so
endif
$B/obj/parallel/nccl/%.cu.o: NVCCFLAGS += $(filter -I%,$(NCCL_FLAGS))
$B/lockstep_nccl.so: $(nccl_src:%.cu=$B/obj/%.cu.o) $B/files
	$(call say,LINK,$@)
	$Q$(NVCC) -shared -cudart static -Xlinker --exclude-libs=ALL -o $@ $(linked) $(NCCL_FLAGS) -Xlinker '-rpath=$$ORIGIN'

# GoogleTest is a library, or its source: where it was fetched, and for a processor that is emulated. Its main() gives way
# to a test's own, as that of a library does.
gtest := $(if $(GTEST_SOURCE),$B/obj/gtest/gtest-all.o $B/obj/gtest/gtest_main.o)
gtest_libs := $(if $(gtest),,-lgtest -lgtest_main)
$B/obj/gtest/%.o: $(GTEST_SOURCE)/src/%.cc $B/flags
	$(call say,CXX,$<)
	@mkdir -p $(@D)
	$Q$(CXX) -std=c++20 -O1 -pthread -I$(GTEST_SOURCE) $(HEADER_CFLAGS) $(EXTRA) '-Dmain=__attribute__((weak)) main' -c -o $@ $<

# A layer not named here is linked with everything.
below_kernels := $(kernels_obj)
below_ref     := $(ref_obj)
below_comm    := $(comm_obj)
define test_program
$B/test_$1: $(or $(below_$1),$(all_obj)) $(call test_obj,$1-%) $(gtest) $B/files
	$$(call say,LINK,$$@)
	$$Q$$(CXX) $$(EXTRA) -o $$@ $$(linked) $(gtest_libs) $$(LDLIBS)
endef
$(foreach layer,$(layers),$(eval $(call test_program,$(layer))))
$B/test_program: | $B/lockstep  # runs it
$B/test_mpi: | $B/lockstep $(mpi_object) $(cuda_object) $(nccl_object)

$B/test_cuda: $(call test_obj,kernels-gpu-%) | $(cuda_object)

# The vector kernels' tests and nothing else, for a processor that is emulated (ci/arm.sh).
$B/test_simd: $(kernels_obj) $(call test_obj,kernels-gpu-%) $(gtest) $B/files
	$(call say,LINK,$@)
	$Q$(CXX) $(EXTRA) -o $@ $(linked) $(gtest_libs) -pthread

# For a machine that has the C++ library, and none of the others: what can be is linked statically, the rest lies
# beside the program.
gpu_libs = $(filter -L%,$(HDF5_LIBS)) -Wl,-Bstatic $(or $(filter -lhdf5_serial,$(HDF5_LIBS)),-lhdf5) -lsz -laec -lz $(filter -lxxhash,$(HEADER_LIBS)) $1 \
    -Wl,-Bdynamic $(filter -lfmt,$(HEADER_LIBS)) -pthread -rdynamic -ldl -lm '-Wl,-rpath,$$ORIGIN'
fmt_object = $(if $(filter -lfmt,$(HEADER_LIBS)),$(shell $(CXX) -print-file-name=libfmt.so))
$B/gpu/lockstep: $(program_obj) $B/files
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$Q$(CXX) $(EXTRA) -s -o $@ $(linked) $(call gpu_libs)
$B/gpu/test_cuda: $(all_obj) $(call test_obj,cuda-% kernels-gpu-%) $(gtest) $B/files
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$Q$(CXX) $(EXTRA) -s -o $@ $(linked) $(call gpu_libs,$(gtest_libs))
$B/gpu/lockstep_cuda.so: $(cuda_object)
	@mkdir -p $(@D) && cp $< $@
	@$(if $(fmt_object),cp $(fmt_object) $(@D)/$$(readlink $(fmt_object) || basename $(fmt_object)))

# What ranks on several GPUs need beside these: Open MPI is packed along, 4 MB; NCCL, 200 MB, is what PyTorch brings.
$B/gpu/lockstep_nccl.so: $(nccl_object) $(mpi_object)
	@mkdir -p $(@D) && cp $^ $(@D) && ci/pack_mpi.sh $(@D)/mpi

$B/bench: $(call obj,$(filter-out $(foreign),$(bench_src))) $(kernels_obj) $B/files
	$(call say,LINK,$@)
	$Q$(CXX) $(EXTRA) -o $@ $(linked) -lbenchmark -lbenchmark_main $(LDLIBS)

.PHONY: cuda nccl gpu-pack gpu-check calibrate auto plan mpi sweep gate report test ci mutants bench resident tokens format deps help clean sources programs
SUITE ?= suites/smoke.toml
mpi: $(mpi_object)
	$(if $(mpi_object),,@echo "  built without MPI: no mpicc was found, so --comm mpi is not there")

cuda: $(cuda_object)
	$(if $(cuda_object),,@echo "  built without CUDA: no nvcc was found, so --device cuda is not there")

nccl: $(nccl_object)
	$(if $(nccl_object),,@echo "  built without NCCL: no nccl.h was found beside nvcc, so --comm nccl is not there")

gpu_packed := $B/gpu/lockstep $B/gpu/test_cuda $(if $(cuda_object),$B/gpu/lockstep_cuda.so) \
    $(if $(and $(nccl_object),$(mpi_object)),$B/gpu/lockstep_nccl.so)
gpu-pack: $(gpu_packed)  ## pack what gpu-check needs on a bare machine with a GPU (build/gpu)
	$(if $(cuda_object),@du -sh $B/gpu,$(error make gpu-pack needs the CUDA toolkit, and found no nvcc))

gpu-check:  ## on a machine with a GPU: tests, gates, sanitizer and times on it (OUT=build/gpu-check PARTS="hash|gate")
	@GPU_CHECK_PARTS='$(PARTS)' ci/gpu_check.sh $B/gpu '$(if $(filter file,$(origin OUT)),$B/gpu-check,$(OUT))'

sweep: $B/lockstep $(mpi_object)  ## run a suite and end in VALID or INVALID (SUITE=suites/smoke.toml ARGS='--launch "mpirun -n {ranks}"')
	@ci/sweep.sh $B $(SUITE) $(ARGS)

gate: $B/lockstep  ## judge every plan of a suite, without timing (SUITE=... ARGS="--junit gate.xml")
	@$B/lockstep gate $(SUITE) $(ARGS)

report:  ## make the page of a sweep, or of a plan --out, again (OUT=build/sweep, its folder)
	@python=$$(ci/venv.sh report) && "$$python" reports/page.py '$(if $(filter file,$(origin OUT)),$B/sweep,$(OUT))'

test:  ## build and run every test; end in 'N passed, N failed'
	@MAKE="$(MAKE)" ci/run_tests.sh

ci:  ## what a change must pass: test, formatting, sanitizers and the gates on the smoke suite
	@MAKE="$(MAKE)" ci/run_tests.sh ci

mutants:  ## put faults in on purpose and see each caught; ends in 'N of N caught' (ARGS=--help)
	@$(MAKE) B=$B-mutants EXTRA='$(EXTRA) -DLOCKSTEP_MUTANTS' $B-mutants/lockstep_mutants
	@$B-mutants/lockstep_mutants mutants $(or $(ARGS),--seeds 20 --out reports/mutants)

bench: $B/bench  ## time the kernels, for the page too (ARGS=--benchmark_filter=...)
	@mkdir -p $B/sweep
	@$B/bench --benchmark_out=$B/sweep/kernels.json --benchmark_out_format=json $(ARGS)

RESIDENT ?= --model suites/models/smol-100m.json --data datasets/excerpt-v509.tok --batch 1 --seq 64 --steps 2
resident: $B/lockstep  ## does disk offload lower a 100 M-parameter run's resident memory as its formula says?
	@$B/lockstep resident $(RESIDENT) $(ARGS)
CLUSTER ?= $B/here.toml
calibrate: $B/lockstep  ## measure this machine for the planner (CLUSTER=build/here.toml ARGS=--threads 2)
	@$B/lockstep calibrate --out $(CLUSTER) $(ARGS)

MODEL ?= suites/models/smol-5m.json
DATA ?= datasets/excerpt-v509.tok
auto: $B/lockstep  ## train by the plan that is predicted to be fastest here (MODEL=... DATA=... ARGS=--steps 100)
	@test -f $(CLUSTER) || $B/lockstep calibrate --out $(CLUSTER)
	@$B/lockstep train --model $(MODEL) --data $(DATA) --plan auto --cluster $(CLUSTER) $(ARGS)

plan: $B/lockstep  ## predict the fastest plan and make its page (MODEL=... CLUSTER=suites/clusters/h100x64.toml ARGS="--batch 256 --seq 4096")
	@test -f $(CLUSTER) || $B/lockstep calibrate --out $(CLUSTER)
	@$B/lockstep plan --model $(MODEL) --cluster $(CLUSTER) --out $B/plan $(or $(ARGS),--batch 8 --seq 64)
	@python=$$(ci/venv.sh report) && echo "page: $$("$$python" reports/page.py $B/plan)"

VOCABULARY ?= 4096
OUT ?= $(basename $(firstword $(TEXT))).tok
tokens:  ## a token file of your text (TEXT=my.txt OUT=my.tok VOCABULARY=4096, or TOKENIZER=other.json)
	$(if $(TEXT),,$(error TEXT is missing: make tokens TEXT=my.txt))
	@python=$$(ci/venv.sh data) && "$$python" datasets/make_tokens.py $(TEXT) --out '$(OUT)' $(ARGS) \
	    $(if $(TOKENIZER),--tokenizer '$(TOKENIZER)',--vocabulary $(VOCABULARY))

format:  ## format the C++ files in place
	@ci/format.sh

deps:  ## install what is missing, and nothing else
	@CXX="$(CXX)" ci/deps.sh $B/deps.mk && echo "deps: what the build needs is there"

clean:  ## remove the build folder
	rm -rf $B

help:  ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

# What the scripts in ci/ ask for.
sources:
	@printf '%s\n' $(kernels_src) $(ref_src) $(comm_src) $(mpi_src) $(parallel_src) $(suites_src) $(mutants_src) suites/main.cpp $(bench_src) $(test_src)
programs:
	@printf '%s\n' $(tests)

-include $(shell find $B/obj -name '*.d' 2>/dev/null)
