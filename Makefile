# s3vol. `make help` lists the targets. Variables: CC, CFLAGS, PREFIX, DESTDIR, V=1, JOBS=N,
# SAN=address|undefined|thread (also address,undefined): a build of its own that halts at the first report,
# and in which what is not initialised holds a pattern.
PREFIX  ?= /usr/local
DESTDIR ?=
CC      ?= cc
SAN     ?=
V       ?= 0
JOBS    ?=
VERSION := 0.1

PKGS    := fuse3 libcurl openssl sqlite3 libzstd expat
B       := build/$(if $(SAN),$(SAN),release)$(if $(filter clang%,$(CC)),-clang)
Q       := $(if $(filter 1,$(V)),,@)
say      = $(if $(filter 1,$(V)),,@printf '  %-7s %s\n' $(1) $(2))

# Asked once, and only when something is compiled: `make check` runs before pkg-config is there.
PKG_CFLAGS = $(eval PKG_CFLAGS := $$(shell pkg-config --cflags $(PKGS)))$(PKG_CFLAGS)
PKG_LIBS   = $(eval PKG_LIBS := $$(shell pkg-config --libs $(PKGS)))$(PKG_LIBS)

WARN    := -Wall -Wextra -Wshadow -Wvla -Wformat=2 -Wmissing-prototypes -Wstrict-prototypes -Werror
CPPFLAGS += -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DFUSE_USE_VERSION=314 -DS3VOL_VERSION='"$(VERSION)"'
CFLAGS  ?= -O2 -g
SANFLAGS = $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer -ftrivial-auto-var-init=pattern)
ALLCFLAGS = -std=gnu17 $(WARN) $(CPPFLAGS) $(CFLAGS) -pthread $(SANFLAGS) $(PKG_CFLAGS)
LIBS     = $(PKG_LIBS) -pthread

src      = $(patsubst %.c,$(B)/%.o,$(wildcard $(1)/*.c))
STORE   := $(call src,store)
CACHE   := $(call src,cache)
FUSE    := $(call src,fuse)
NBD     := $(call src,contrib/nbd)
UNIT    := $(patsubst %.c,$(B)/%,$(wildcard tests/unit/test_*.c))
# The daemon's threads have small stacks (fuse/daemon.c).
$(STORE) $(CACHE) $(FUSE): WARN += $(if $(SAN),,-Wframe-larger-than=20000)

# The engine with small limits, so that a small volume meets them all.
SMALL   := $(patsubst %.c,$(B)/sim/%.o,$(wildcard store/*.c cache/*.c))
# The simulation: the same, and its threads, files and time replaced by the linker.
SIM     := $(SMALL) $(patsubst %.c,$(B)/sim/%.o,$(wildcard tests/sim/*.c))
SIMWRAP := pthread_create pthread_join pthread_mutex_init pthread_mutex_destroy pthread_mutex_lock pthread_mutex_unlock \
    pthread_cond_init pthread_cond_destroy pthread_cond_wait pthread_cond_signal pthread_cond_broadcast \
    pthread_key_create pthread_setspecific pthread_getspecific getrandom getpid gethostname open64 close \
    pread64 pwrite64 fallocate64 ftruncate64 fdatasync fsync fstat64 stat64 unlink mkdir mkdtemp flock \
    statvfs64 clock_system index_mask log_claim log_still_ours \
    volume_append_moves volume_wait_durable
FUZZ    := $(patsubst %.c,$(B)/%,$(filter-out %/replay.c,$(wildcard tests/fuzz/*.c)))
# What the tests run beside s3vol itself.
TOOLS   := $(patsubst %.c,$(B)/%,$(wildcard tests/*.c))
# A bare FUSE file, for comparison.
BARE    := $(B)/contrib/bench/barefuse
S3D     := $(if $(wildcard tests/s3d/*.c),$(B)/tests/s3d/s3d)

all: $(B)/s3vol $(B)/s3vol-nbd

help:
	@echo 'make               build $(B)/s3vol and $(B)/s3vol-nbd'
	@echo 'make check         install what is missing (as root), build, run all the tests'
	@echo 'make check-quick   the unit tests and a few end-to-end tests: two minutes'
	@echo 'make soak          the random tests for long: KILLS=n kills and fights on each store, RUNS=n of the model, SEEDS=n of the simulation'
	@echo 'make check-mutants  break the rules one by one: the simulation must notice'
	@echo 'make unit          build and run the unit tests'
	@echo 'make demo          see it work, in a local directory'
	@echo 'make bench         measure it against its limits and what others use; bench-quick: in 5 minutes'
	@echo 'make fuzz          each decoder with libFuzzer, for FUZZ_SECONDS (60) seconds'
	@echo 'make analyze       formatting, cppcheck, shellcheck, the house rules'
	@echo 'make install       to $$DESTDIR$$PREFIX ($(PREFIX)); uninstall: undo that'
	@echo 'make clean         delete build/'

$(B)/s3vol: $(FUSE) $(B)/cache.a $(B)/store.a
# The server needs little of s3vol and no other library than OpenSSL.
$(B)/s3vol-nbd: $(NBD) $(addprefix $(B)/,store/msg.o store/scope.o fuse/units.o)
$(B)/s3vol-nbd: LIBS = -lssl -lcrypto -pthread
$(B)/store.a: $(STORE)
$(B)/cache.a: $(CACHE)
$(TOOLS): $(B)/tests/%: $(B)/tests/%.o $(B)/cache.a $(B)/store.a
$(UNIT): $(B)/tests/unit/%: $(B)/tests/unit/%.o $(B)/cache.a $(B)/store.a
$(UNIT): LIBS += -lcmocka
# Of fuse/ a unit test links what it names.
$(B)/tests/unit/test_options: $(addprefix $(B)/fuse/,options.o options_value.o units.o mount_helper.o)
$(B)/tests/unit/test_daemon: $(B)/fuse/daemon.o
$(B)/tests/unit/test_status: $(addprefix $(B)/fuse/,status.o json.o units.o)
$(B)/tests/unit/test_units: $(B)/fuse/units.o
$(B)/tests/unit/test_workers: $(B)/fuse/workers.o
# Every call of these may be the one that fails (tests/unit/nth.h).
NTHWRAP := pread64 pwrite64 fdatasync fsync fallocate64 ftruncate64 open64 unlink mkdir flock \
    malloc calloc realloc aligned_alloc pthread_create
$(B)/tests/unit/test_volume_nth: $(SMALL)
$(B)/tests/unit/test_repair: $(SMALL)
$(B)/tests/unit/test_volume_nth: LDFLAGS += $(NTHWRAP:%=-Wl,--wrap=%)
$(B)/tests/unit/test_s3_answers: LDFLAGS += -Wl,--wrap=EVP_md5
$(S3D): $(call src,tests/s3d) $(B)/store.a
$(BARE): $(B)/contrib/bench/barefuse.o
$(BARE): LIBS = $(shell pkg-config --libs fuse3) -pthread
# libFuzzer has a main of its own.
$(FUZZ): $(B)/tests/fuzz/%: $(B)/tests/fuzz/%.o $(if $(findstring fuzzer,$(SAN)),,$(B)/tests/fuzz/replay.o) \
    $(B)/cache.a $(B)/store.a
$(B)/tests/fuzz/nbd $(B)/tests/unit/test_nbd: $(filter-out %/main.o %/options.o,$(NBD))

$(B)/tests/sim: $(SIM)
# Bound at the start, or each seed, a process of its own, would look each function up anew.
$(B)/tests/sim: LDFLAGS += -Wl,-z,now $(SIMWRAP:%=-Wl,--wrap=%)

$(B)/s3vol $(B)/s3vol-nbd $(UNIT) $(TOOLS) $(S3D) $(BARE) $(FUZZ) $(B)/tests/sim:
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D) && $(CC) $(ALLCFLAGS) $(LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LIBS)

$(B)/%.a:
	$(call say,AR,$@)
	$(Q)mkdir -p $(@D) && rm -f $@ && ar rcs $@ $^

$(B)/%.o: %.c Makefile
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D) && $(CC) $(ALLCFLAGS) -MMD -MP -c -o $@ $<

$(B)/sim/%.o: %.c Makefile
	$(call say,CC,'$< (simulated)')
	$(Q)mkdir -p $(@D) && $(CC) $(ALLCFLAGS) -DSMALL_LIMITS -MMD -MP -c -o $@ $<

# `tests` builds everything that tests/run runs.
tests: all $(UNIT) $(TOOLS) $(S3D) $(FUZZ) $(B)/tests/sim

unit: $(UNIT) $(S3D)
	$(Q)B=$(B) tests/run $(if $(JOBS),-j$(JOBS)) unit

# These begin by installing what is missing, so the rest of them is another make: this one may have
# been started without a compiler.
check check-quick: %:
	$(Q)contrib/setup build test
	$(Q)$(MAKE) --no-print-directory -j2 tests
	$(Q)B=$(B) tests/run $(if $(JOBS),-j$(JOBS)) $(if $(filter %-quick,$*),--quick)

# The rules that the promises rest on, broken one by one: the simulation must fail (tests/mutants).
check-mutants:
	$(Q)contrib/setup build
	$(Q)$(MAKE) --no-print-directory -j2 $(B)/tests/sim
	$(Q)B=$(B) tests/mutants/run $(if $(JOBS),-j$(JOBS))

# As long as it takes: nothing is stopped before LIMIT seconds.
KILLS   ?= 200
RUNS    ?= 100
SEEDS   ?= 20000
LIMIT   ?= 86400
SOAK    := t-fsync-survives-many-kills t-stopped-writer-is-fenced t-damaged-index-anywhere t-model t-simulation
soak:
	$(Q)contrib/setup build test
	$(Q)$(MAKE) --no-print-directory -j2 tests
	$(Q)B=$(B) KILLS=$(KILLS) ROUNDS=$(KILLS) FLIPS=$(KILLS) RUNS=$(RUNS) SEEDS=$(SEEDS) LIMIT=$(LIMIT) tests/run $(if $(JOBS),-j$(JOBS)) $(SOAK)

demo:
	$(Q)contrib/setup build demo
	$(Q)$(MAKE) --no-print-directory -j2 all
	$(Q)B=$(B) contrib/demo

bench bench-quick: %:
	$(Q)contrib/setup build bench
	$(Q)$(MAKE) --no-print-directory -j2 benched
	$(Q)B=$(B) contrib/bench/run $(if $(filter %-quick,$*),--quick)

# What the benchmarks run.
benched: all $(S3D) $(BARE)

fuzz:
	$(Q)contrib/setup build fuzz
	$(Q)$(MAKE) --no-print-directory -j2 CC=clang SAN=fuzzer,address,undefined fuzzers
	$(Q)B=build/fuzzer,address,undefined-clang tests/fuzz/run

fuzzers: $(FUZZ)

SCRIPTS = contrib/setup contrib/demo $(wildcard contrib/bench/run contrib/bench/*.sh) tests/run tests/mutants/run tests/fuzz/run tests/fuzz/seed .ci/run \
    $(wildcard tests/*.sh tests/lib/*.sh)
analyze:
	$(call say,FORMAT,'*.[ch]')
	$(Q)clang-format --dry-run -Werror $(wildcard */*.[ch] */*/*.[ch])
	$(call say,CPPCHECK,'*.c')
	$(Q)cppcheck -q -j2 --std=c11 --enable=warning,performance,portability --inline-suppr \
	    --suppressions-list=.cppcheck --error-exitcode=1 -DS3VOL_VERSION='""' $(wildcard */*.c */*/*.c)
	$(call say,SHELL,'*.sh')
	$(Q)shellcheck -x -S warning $(SCRIPTS)
	$(call say,RULES,tests/t-house-rules.sh)
	$(Q)tests/t-house-rules.sh

D = $(DESTDIR)$(PREFIX)
UNITS = $(notdir $(wildcard contrib/systemd/*.service contrib/systemd/*.socket))
install: all
	$(call say,INSTALL,$(D))
	$(Q)install -Dm755 $(B)/s3vol $(D)/bin/s3vol
	$(Q)install -Dm755 $(B)/s3vol-nbd $(D)/bin/s3vol-nbd
	$(Q)install -Dm644 -t $(D)/share/man/man1 contrib/man/s3vol.1 contrib/man/s3vol-nbd.1
	$(Q)install -Dm644 contrib/completion/s3vol.bash $(D)/share/bash-completion/completions/s3vol
	$(Q)install -d $(D)/lib/systemd/system $(DESTDIR)/sbin
	$(Q)for u in $(UNITS); do sed 's|@PREFIX@|$(PREFIX)|g' contrib/systemd/$$u >$(D)/lib/systemd/system/$$u; done
	$(Q)ln -sf $(PREFIX)/bin/s3vol $(DESTDIR)/sbin/mount.fuse.s3vol

uninstall:
	$(call say,REMOVE,$(D))
	$(Q)rm -f $(D)/bin/s3vol $(D)/bin/s3vol-nbd $(D)/share/man/man1/s3vol.1 $(D)/share/man/man1/s3vol-nbd.1 \
	    $(D)/share/bash-completion/completions/s3vol $(UNITS:%=$(D)/lib/systemd/system/%) $(DESTDIR)/sbin/mount.fuse.s3vol

clean:
	rm -rf build

.PHONY: all help tests unit check check-quick check-mutants soak demo bench bench-quick benched fuzz fuzzers analyze install uninstall clean
.SECONDARY:
.DELETE_ON_ERROR:
-include $(wildcard $(B)/*/*.d $(B)/*/*/*.d $(B)/sim/*/*/*.d)
