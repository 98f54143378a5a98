# topolm.cu
#
#   make                the programs: tokenize, train_topolm, infer, atlas, bench
#   make demo           everything on real text, in minutes; make demo TEXT=my.txt for your own
#   make test           all tests
#   make science        the study of the README: models from five seeds and their controls, measured; 20 minutes
#   make setup          installs what is missing (Debian, Ubuntu); demo and test call it themselves
#   make gpu-report     with a GPU: tests, sanitizers and times there -> gpu-report.md
#   make profile        Nsight Systems over a training step; profile-kernel: Nsight Compute (docs/profiling.md)
#   make kernel-report  what ptxas says of each CUDA kernel, and what it must move and compute
#   make ptx-check      the kernels' tests on what nvcc makes of them, interpreted
#   make test-page      the Atlas page in Chromium
#   make test-deep      every kernel of the GPU under a thousand schedules
#   make test-neon      the kernels on AArch64, run by QEMU
#   make lint           formatting, and what the linker must not mix between instruction sets
#
#   CXX=clang++     another compiler            BUILD=DIR      another place for objects and programs
#   SANITIZE=1      AddressSanitizer and UBSan  WERROR=1       warnings are errors
#   SANITIZE=thread ThreadSanitizer             DEBUG=1        -O0 with full debug information
#   ARCH="80 90"    compute capabilities to compile CUDA for   NVCC=     no CUDA, even where nvcc is found

CXX      ?= g++
BUILD    ?= build
OPTIMISE := $(if $(DEBUG),-O0 -g,$(if $(SANITIZE),-O1 -g1,-O2 -g1))

comma      := ,
WARNINGS   := -Wall -Wextra -Wpedantic $(if $(WERROR),-Werror)
SANITIZERS := $(if $(SANITIZE),$(if $(filter thread,$(SANITIZE)),-fsanitize=thread,-fsanitize=address$(comma)undefined \
              -fno-sanitize-recover=all) -fno-omit-frame-pointer)
FLAGS       = -std=c++20 -I. $(WARNINGS) $(OPTIMISE) $(SANITIZERS) -MMD -MP -pthread $(CXXFLAGS)
LIBS       := -lcsv -lfmt -lutf8proc -lz -lmd -pthread
# The default build puts the programs at the top level; another BUILD keeps its own.
BIN        := $(if $(filter build,$(BUILD)),.,$(BUILD))

# Kernels for the CPU are one source, compiled once for each instruction set; a program picks one as it starts.
MACHINE := $(shell $(CXX) -dumpmachine 2>/dev/null)
ISAS    := $(if $(findstring x86_64,$(MACHINE)),sse2 avx2 avx512 avx512_bf16 amx amx_emulated,neon)
FLAGS_sse2   := -march=x86-64
FLAGS_avx2   := -march=x86-64-v3
FLAGS_avx512 := -march=x86-64-v4 -mprefer-vector-width=512
FLAGS_avx512_bf16  := $(FLAGS_avx512) -mavx512bf16
FLAGS_amx          := $(FLAGS_avx512_bf16) -mamx-tile -mamx-bf16
FLAGS_amx_emulated := $(FLAGS_avx512) -DTOPOLM_AMX_EMULATED
FLAGS_neon   :=
# Contract a*b+c into one operation; assume nothing about NaN and infinity: masks and diverging runs need them.
KERNEL_FLAGS := $(if $(DEBUG),,$(if $(SANITIZE),,-O3)) -ffp-contract=fast -fno-math-errno -fno-trapping-math

# The CUDA kernels, compiled as C++: every CUDA thread is a fiber of kernels/simt. With multiply and add
# contracted, as nvcc does, they give the bits that its code gives.
TWIN_FLAGS := -DTOPOLM_GPU=simt_kernels -ffp-contract=fast $(if $(findstring x86_64,$(MACHINE)),-mfma)
SIMT_FLAGS := -x c++ -Wno-unknown-pragmas $(TWIN_FLAGS)

# ThreadSanitizer shall see the kernels' accesses, not those of the machine that runs them.
ifeq ($(SANITIZE),thread)
  $(addprefix $(BUILD)/obj/kernels/simt/,fiber.o machine.o schedule.o): SANITIZERS := -DTOPOLM_THREAD_SANITIZER -O2
endif

CAIRO := $(shell pkg-config --exists cairo 2>/dev/null && echo yes)

# CUDA where nvcc is found, for this machine's own kind. Code for each architecture, and PTX that newer and
# other GPUs compile as they start: of the oldest for those between (11.0), of the newest for those to come.
# Sanitizers do not see what nvcc makes: their build does without.
NATIVE := $(filter $(shell uname -m)-%,$(MACHINE))
NVCC   := $(if $(NATIVE),$(firstword $(wildcard $(shell command -v nvcc 2>/dev/null) /usr/local/cuda/bin/nvcc)))
# The toolkit's place is nvcc's own word (TOP=): what is found on the PATH may be a script that calls it.
CUDA   := $(if $(SANITIZE),,$(if $(NVCC),$(realpath $(shell $(NVCC) -dryrun -x cu /dev/null 2>&1 | sed -n 's/^.. TOP=//p'))))
ifneq ($(CUDA),)
  ARCH       ?= $(filter $(subst compute_,,$(shell $(NVCC) --list-gpu-arch)),80 90 100 120)
  PTX        := $(firstword $(ARCH)) $(lastword $(ARCH))
  GENCODE     = $(foreach a,$(ARCH),-gencode arch=compute_$a,code=[sm_$a$(if $(filter $a,$(PTX)),$(comma)compute_$a)])
  NVCC_FLAGS  = -std=c++20 -I. -DTOPOLM_GPU=cuda_kernels -O3 -lineinfo $(GENCODE) -Xcompiler -Wall,-Wextra \
                $(if $(WERROR),-Werror all-warnings -Xptxas -warn-spills$(comma)-warn-lmem-usage)
  CUDA_KERNELS := $(patsubst %.cu,$(BUILD)/obj/%.o,$(wildcard kernels/cuda/*.cu)) \
                  $(patsubst %,$(BUILD)/obj/kernels/cuda/%.o,cuda_device cublaslt)
  # The runtime is linked into the programs: they start where CUDA was never installed.
  LIBS += $(addprefix -L,$(wildcard $(CUDA)/lib64 $(CUDA)/lib)) -lcudart_static -ldl -lrt
endif

# NVTX is a header of the CUDA toolkit; profilers bring the rest.
NVTX_INCLUDE := $(patsubst %/nvtx3/nvToolsExt.h,%,$(if $(NVCC),$(wildcard $(CUDA)/include/nvtx3/nvToolsExt.h)))
ifneq ($(NVTX_INCLUDE),)
  $(BUILD)/obj/engine/nvtx.o: FLAGS += -DTOPOLM_NVTX -isystem $(NVTX_INCLUDE)
  $(BUILD)/obj/tests/test_nvtx.o: FLAGS += -DTOPOLM_NVTX -DTOPOLM_BUILD='"$(BUILD)"'
  NVTX_RECORDER := $(BUILD)/nvtx_recorder.so
endif

CUDA_CPP := $(patsubst %,kernels/cuda/%.cpp,gpu_device dry_device timed_device plan_cache)
objects  = $(patsubst %.cpp,$(BUILD)/obj/%.o,$(1))
LIBRARY  := $(call objects,$(wildcard engine/*.cpp kernels/*.cpp $(CUDA_CPP) kernels/simt/*.cpp model/*.cpp tokenizer/*.cpp tools/analysis/*.cpp \
  $(filter-out %_figure.cpp,$(wildcard tools/atlas/*.cpp))))
SIMT     := $(patsubst kernels/cuda/%.cu,$(BUILD)/obj/kernels/simt/cuda/%.o,$(wildcard kernels/cuda/*.cu))
KERNELS  := $(CUDA_KERNELS) $(SIMT) $(foreach isa,$(ISAS),$(patsubst kernels/cpu/%.cpp,$(BUILD)/obj/kernels/cpu/$(isa)/%.o,$(wildcard kernels/cpu/*.cpp)))
tool_programs = $(filter $(patsubst tools/%.cpp,%,$(wildcard tools/*.cpp)),$(1))
PROGRAMS := $(addprefix $(BIN)/,$(call tool_programs,tokenize train_topolm infer atlas bench))
# Programs that only scripts run stay in the build directory.
HELPERS  := $(addprefix $(BUILD)/,$(call tool_programs,extract_novels report science kernel_report gpu_report))

$(BIN)/bench: $(call objects,$(wildcard tools/bench/*.cpp))

# Pictures need cairo; tables and pages do not.
ifdef CAIRO
  FIGURE := $(call objects,tools/figure.cpp)
  $(BUILD)/report: $(call objects,tools/report_figure.cpp) $(FIGURE)
  $(BUILD)/science: $(call objects,tools/science_figure.cpp) $(FIGURE)
  $(BIN)/atlas: $(call objects,tools/atlas/maps_figure.cpp) $(FIGURE)
  $(call objects,$(addprefix tools/,report.cpp report_figure.cpp figure.cpp science.cpp science_figure.cpp \
    atlas.cpp atlas/maps_figure.cpp)): \
    FLAGS += -DTOPOLM_CAIRO $(shell pkg-config --cflags cairo)
  $(BUILD)/report $(BUILD)/science $(BIN)/atlas: LIBS += $(shell pkg-config --libs cairo)
endif

all: about $(PROGRAMS) $(HELPERS)

about:
	@echo "compiler   $(CXX) $$($(CXX) -dumpversion 2>/dev/null || echo 'not found: run make setup') for $(MACHINE)"
	@echo "kernels    cpu: $(ISAS); simt"
	@echo "cuda       $(if $(CUDA),$(NVCC) $$($(NVCC) --version | sed -n 's/.*release \([0-9.]*\).*/\1/p') for $(ARCH),no nvcc, or not for this build: programs without the device cuda)"
	@echo "figures    $(if $(CAIRO),cairo,no cairo: build/report prints tables only; make setup installs it)"
	@echo "threads    $$(nproc)"

$(PROGRAMS): $(BIN)/%: $(BUILD)/obj/tools/%.o $(BUILD)/topolm.a
	$(CXX) $(FLAGS) $(filter %.o,$^) $(filter %.a,$^) $(LIBS) -o $@

$(BUILD)/kernel_report: LIBS += -rdynamic
$(HELPERS): $(BUILD)/%: $(BUILD)/obj/tools/%.o $(BUILD)/topolm.a
	$(CXX) $(FLAGS) $(filter %.o,$^) $(filter %.a,$^) $(LIBS) -o $@

# What the test of the ranges puts in a profiler's place.
$(BUILD)/nvtx_recorder.so: tests/nvtx/recorder.cpp
	@mkdir -p $(@D)
	$(CXX) $(FLAGS) -isystem $(NVTX_INCLUDE) -shared -fPIC $< -o $@

# Kernels of tests are for simt only.
TEST_KERNELS := $(patsubst %.cu,$(BUILD)/obj/%.o,$(wildcard tests/*.cu))
$(BUILD)/tests: $(call objects,$(wildcard tests/*.cpp)) $(TEST_KERNELS) $(BUILD)/topolm.a
	$(CXX) $(FLAGS) $^ $(LIBS) -o $@

$(BUILD)/topolm.a: $(LIBRARY) $(KERNELS)
	@rm -f $@
	ar rcs $@ $^

define kernel_rule
$(BUILD)/obj/kernels/cpu/$(1)/%.o: kernels/cpu/%.cpp
	@mkdir -p $$(@D)
	$(CXX) $$(FLAGS) $(KERNEL_FLAGS) $(FLAGS_$(1)) -DTOPOLM_ISA=$(1) -c $$< -o $$@
endef
$(foreach isa,$(ISAS),$(eval $(call kernel_rule,$(isa))))

$(BUILD)/obj/kernels/simt/cuda/%.o: kernels/cuda/%.cu
	@mkdir -p $(@D)
	$(CXX) $(FLAGS) $(SIMT_FLAGS) -c $< -o $@

# What CUDA is compiled for is in a file, so that another ARCH, or NVCC= after a build with it, compiles again.
$(BUILD)/cuda.arch: FORCE
	@mkdir -p $(@D)
	@echo '$(NVCC) $(ARCH)' | cmp -s - $@ || echo '$(NVCC) $(ARCH)' >$@
# What ptxas says of registers and memory goes beside the object, for kernel-report; the rest is shown.
$(BUILD)/obj/kernels/cuda/%.o: kernels/cuda/%.cu $(BUILD)/cuda.arch
	@mkdir -p $(@D)
	$(NVCC) $(NVCC_FLAGS) -Xptxas -v -MMD -MP -c $< -o $@ 2>$(@:.o=.ptxas) || { cat $(@:.o=.ptxas) >&2; exit 1; }
	@grep -v '^ptxas info\|bytes stack frame' $(@:.o=.ptxas) >&2 || true
$(BUILD)/obj/kernels/devices.o $(BUILD)/obj/tests/test_devices.o: $(BUILD)/cuda.arch
ifneq ($(CUDA),)
CUDA_DEFINES := -DTOPOLM_CUDA -DTOPOLM_CUDA_HOME='"$(CUDA)"' -isystem $(CUDA)/include
$(patsubst %,$(BUILD)/obj/%.o,$(addprefix kernels/,devices cuda/cuda_device cuda/cublaslt) tests/test_devices): FLAGS += $(CUDA_DEFINES)
$(BUILD)/obj/tests/cuda_host/%.o: FLAGS += $(CUDA_DEFINES)
endif

$(BUILD)/obj/tests/%.o: FLAGS += -DTOPOLM_BIN='"$(BIN)"'
$(BUILD)/obj/tests/%.o: tests/%.cu
	@mkdir -p $(@D)
	$(CXX) $(FLAGS) $(SIMT_FLAGS) -c $< -o $@
$(BUILD)/obj/%.o: %.cpp
	@mkdir -p $(@D)
	$(CXX) $(FLAGS) -c $< -o $@
# The assembler puts these into it, and tells no dependency file.
$(BUILD)/obj/tools/analysis/built_in_stimuli.o: $(wildcard tools/stimuli/*.csv)
$(BUILD)/obj/tools/atlas/page.o: $(wildcard tools/atlas/page/*)

# setup may install the compiler itself, so what follows it is another make that looks around afresh.
demo test: setup
	@$(MAKE) --no-print-directory -j$$(nproc) run-$@

setup:
	@sh tools/setup.sh

# Some tests run the programs; and GPT-2's own vocabulary is fetched, not kept here.
run-test: all $(BUILD)/tests $(NVTX_RECORDER) $(if $(CUDA),$(BUILD)/cuda_host_tests)
	@sh tools/fetch_gpt2_vocab.sh build/gpt2
	$(BUILD)/tests
	$(if $(CUDA),$(BUILD)/cuda_host_tests)

# The kernels and their tests without the libraries that a cross compiler would need, for the NEON kernels:
# AArch64 code run by QEMU (packages g++-aarch64-linux-gnu and qemu-user-static).
kernel_test_sources = $(wildcard kernels/*.cpp kernels/simt/*.cpp) kernels/cuda/gpu_device.cpp kernels/cuda/timed_device.cpp \
  $(patsubst %,engine/%.cpp,arena file nvtx parallel profile random tensor) $(if $(CUDA),kernels/cuda/plan_cache.cpp) \
  $(patsubst %,tests/%.cpp,main test_attention test_cross_entropy test_embedding test_gelu test_int8 test_layernorm test_linear \
  test_elementwise test_optimizer test_parallel test_sample test_schedules test_simt test_spatial_loss test_tiles)
$(BUILD)/kernel_tests: $(call objects,$(kernel_test_sources)) $(TEST_KERNELS) $(KERNELS)
	$(CXX) $(FLAGS) $(if $(findstring aarch64,$(MACHINE)),-static) $^ $(if $(CUDA),$(LIBS),$(if $(NATIVE),-lfmt)) -o $@

# The host's part of the device cuda, run against a CUDA made for the tests.
$(BUILD)/cuda_host_tests: $(call objects,$(wildcard tests/cuda_host/test*.cpp tests/cuda_host/fake_cuda.cpp) tests/main.cpp) \
  $(BUILD)/topolm.a $(BUILD)/fake/libcublasLt.so.13
	$(CXX) $(FLAGS) $(filter-out %.13,$^) $(LIBS) -rdynamic -Wl,-rpath,$(abspath $(BUILD)/fake) -o $@
$(BUILD)/fake/libcublasLt.so.13: tests/cuda_host/fake_cublaslt.cpp tests/cuda_host/fake_cuda.h
	@mkdir -p $(@D)
	$(CXX) $(FLAGS) $(CUDA_DEFINES) -fPIC -shared $< -o $@

# The Atlas page in Chromium: data of full size made for the test, and what ./atlas makes of two small models.
PAGE := $(BUILD)/page_tests
test-page: all
	@rm -rf $(PAGE)/models $(PAGE)/maps && mkdir -p $(PAGE)
	$(BIN)/tokenize README.md -o $(PAGE)/data --vocab-size 300
	for alpha in 2.5 0; do $(BIN)/train_topolm $(PAGE)/data/train.bin --preset nano --block-size 128 --alpha $$alpha \
	  --steps 20 --save-every 10 --keep 0 --out $(PAGE)/models/$$alpha || exit 1; done
	$(BIN)/atlas topographic=$(PAGE)/models/2.5 control=$(PAGE)/models/0 --null 10 --out $(PAGE)/maps
	BUILD=$(BUILD) ATLAS_HTML=$(PAGE)/maps/atlas.html sh tests/page/run.sh

test-deep: $(BUILD)/kernel_tests
	TOPOLM_SCHEDULES=1000 $(BUILD)/kernel_tests -tc='schedules*'

test-neon:
	@mkdir -p build-neon/headers && ln -sfn /usr/include/fmt /usr/include/doctest build-neon/headers
	@$(MAKE) --no-print-directory build-neon/kernel_tests BUILD=build-neon CXX=aarch64-linux-gnu-g++ \
	  CXXFLAGS='-DFMT_HEADER_ONLY -isystem build-neon/headers'
	TOPOLM_SCHEDULES=4 qemu-aarch64-static build-neon/kernel_tests

# With a GPU: all tests on it, compute-sanitizer, and times -> gpu-report.md. DEVICE=simt rehearses.
gpu-report: setup
	@$(MAKE) --no-print-directory -j$$(nproc) all $(BUILD)/kernel_tests $(BUILD)/tests
	@sh tools/gpu_report.sh $(BUILD) $(or $(DEVICE),cuda)

# docs/profiling.md says what to look at.
profile: all
	@mkdir -p $(BUILD)/profile
	TOPOLM_GRAPHS=off nsys profile --trace=cuda,nvtx,cublas --force-overwrite=true -o $(BUILD)/profile/step \
	  --capture-range=nvtx --nvtx-capture='step 8@topolm' --capture-range-end=stop \
	  -e NSYS_NVTX_PROFILER_REGISTER_ONLY=0 $(BUILD)/gpu_report --only step $(PROFILE_FLAGS)
	nsys stats --report nvtx_gpu_proj_sum,cuda_gpu_kern_sum $(BUILD)/profile/step.nsys-rep

profile-kernel: all
	$(if $(KERNEL),,$(error make profile-kernel KERNEL=attention_forward: name a kernel, or the beginning of one))
	@mkdir -p $(BUILD)/profile
	TOPOLM_GRAPHS=off ncu --set full --nvtx --import-source yes -k regex:$(KERNEL) -c 3 -f -o $(BUILD)/profile/$(KERNEL) \
	  $(BUILD)/gpu_report --only step $(PROFILE_FLAGS)

kernel-report: $(BUILD)/kernel_report $(CUDA_KERNELS)
	$(if $(CUDA),,$(error make kernel-report needs nvcc))
	$(BUILD)/kernel_report --ptxas $(patsubst %.cu,$(BUILD)/obj/%.ptxas,$(wildcard kernels/cuda/*.cu)) --out $(BUILD)/kernel-report.md

# The PTX that nvcc makes of the kernels for each architecture; and the kernels' tests on a device that runs both
# this PTX and the source, in place of the devices of kernels/devices.cpp.
define ptx_rule
$(BUILD)/ptx/$(1)/%.ptx: $(2)/%.cu
	@mkdir -p $$(@D)
	$$(NVCC) -std=c++20 -I. -DTOPOLM_GPU=simt_kernels -arch=compute_$(1) -Werror all-warnings -MMD -MP -MF $$(@:.ptx=.d) -ptx $$< -o $$@
endef
$(foreach a,$(ARCH),$(foreach d,kernels/cuda tests/ptx,$(eval $(call ptx_rule,$a,$d))))

$(BUILD)/obj/tests/ptx/%.o: FLAGS += $(TWIN_FLAGS)
$(BUILD)/obj/tests/ptx/%.o: tests/ptx/%.cu
	@mkdir -p $(@D)
	$(CXX) $(FLAGS) $(SIMT_FLAGS) -c $< -o $@
# Of the tests those of the operations.
ptx_check_sources = $(wildcard tests/ptx/*.cpp) $(filter-out %/devices.cpp %/plan_cache.cpp %/file.cpp \
  $(patsubst %,tests/%.cpp,main test_parallel test_schedules test_simt test_tiles),$(kernel_test_sources))
$(BUILD)/ptx_check: $(call objects,$(ptx_check_sources)) $(BUILD)/obj/tests/ptx/wrappers.o $(filter-out $(CUDA_KERNELS),$(KERNELS))
	$(CXX) $(FLAGS) -rdynamic $^ -lfmt -ldl -o $@

ifneq ($(NVCC),)
ptx-check: $(BUILD)/ptx_check $(foreach a,$(ARCH),$(patsubst %.cu,$(BUILD)/ptx/$a/%.ptx,$(notdir $(wildcard kernels/cuda/*.cu tests/ptx/*.cu))))
	$(BUILD)/ptx_check --arch "$(ARCH)"
else
ptx-check:
	@echo "ptx-check: skipped, there is no nvcc here"
endif

# Goes on where it was stopped.
science: setup
	@$(MAKE) --no-print-directory -j$$(nproc) run-science
run-science: all
	@sh tools/science.sh

run-demo: all
	@TEXT='$(TEXT)' sh tools/demo.sh

lint:
	@sh tools/lint.sh $(BUILD)

clean:
	rm -rf $(BUILD) $(PROGRAMS)

FORCE:
.PHONY: FORCE all about demo test setup science run-test run-demo run-science test-page test-neon test-deep ptx-check \
  kernel-report gpu-report profile profile-kernel lint clean
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
