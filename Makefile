# topolm.cu: `make` builds the programs, `make demo` shows them on real text, `make test` proves them.
#   CXX=clang++    another compiler            BUILD=DIR      another place for objects
#   SANITIZE=1     AddressSanitizer + UBSan    WERROR=1       warnings are errors

CXX      ?= g++
BUILD    ?= build
CXXFLAGS ?= -O2 -g1
WARNINGS := -Wall -Wextra -Wpedantic $(if $(WERROR),-Werror)
FLAGS     = -std=c++20 -I. $(WARNINGS) $(CXXFLAGS) $(SANITIZERS) -MMD -MP -pthread
comma    := ,
SANITIZERS := $(if $(SANITIZE),-fsanitize=address$(comma)undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
LIBS     := -lfmt -lutf8proc -lz -lmd -pthread

# Kernels for the CPU are one source compiled once for each instruction set; the program picks one when it starts.
MACHINE := $(shell $(CXX) -dumpmachine)
ifneq (,$(findstring x86_64,$(MACHINE)))
  ISAS := sse2 avx2 avx512
else
  ISAS := neon
endif
FLAGS_sse2   := -march=x86-64
FLAGS_avx2   := -march=x86-64-v3
FLAGS_avx512 := -march=x86-64-v4 -mprefer-vector-width=512
FLAGS_neon   :=
# Contract a*b+c; do not assume finite numbers: -inf masks and NaN losses must survive.
KERNEL_FLAGS := -O3 -ffp-contract=fast -fno-math-errno -fno-trapping-math

objects = $(patsubst %.cpp,$(BUILD)/obj/%.o,$(1))
LIBRARY  := $(call objects,$(filter-out kernels/cpu/%,$(wildcard engine/*.cpp kernels/*.cpp model/*.cpp tokenizer/*.cpp)))
KERNELS  := $(foreach isa,$(ISAS),$(patsubst kernels/cpu/%.cpp,$(BUILD)/obj/kernels/cpu/$(isa)/%.o,$(wildcard kernels/cpu/*.cpp)))
PROGRAMS := $(filter $(patsubst tools/%.cpp,%,$(wildcard tools/*.cpp)),tokenize train_topolm infer bench)
# Programs that only scripts run stay in the build directory.
HELPERS  := $(addprefix $(BUILD)/,$(filter $(patsubst tools/%.cpp,%,$(wildcard tools/*.cpp)),extract_novels))

all: $(PROGRAMS) $(HELPERS)

$(PROGRAMS): %: $(BUILD)/obj/tools/%.o $(BUILD)/topolm.a
	$(CXX) $(FLAGS) $^ $(LIBS) -o $@

$(HELPERS): $(BUILD)/%: $(BUILD)/obj/tools/%.o $(BUILD)/topolm.a
	$(CXX) $(FLAGS) $^ $(LIBS) -o $@

$(BUILD)/tests: $(call objects,$(wildcard tests/*.cpp)) $(BUILD)/topolm.a
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

$(BUILD)/obj/%.o: %.cpp
	@mkdir -p $(@D)
	$(CXX) $(FLAGS) -c $< -o $@

# Some tests run the program itself; and GPT-2's own vocabulary is fetched, not kept here.
test: $(BUILD)/tests tokenize bench
	sh tools/fetch_gpt2_vocab.sh build/gpt2
	$(BUILD)/tests

clean:
	rm -rf $(BUILD) $(PROGRAMS)

.PHONY: all test clean
.SECONDARY:
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
