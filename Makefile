# s3vol: make, make check, make demo, make bench, make install. Variables: CC, SAN=address|thread|undefined, V=1.
PREFIX  ?= /usr/local
CC      ?= cc
SAN     ?=
V       ?= 0
VERSION := 0.1

PKGS    := fuse3 libcurl openssl sqlite3 libzstd expat
B       := build/$(if $(SAN),$(SAN),release)$(if $(filter clang%,$(CC)),-clang)
Q       := $(if $(filter 1,$(V)),,@)
say      = $(if $(filter 1,$(V)),,@printf '  %-7s %s\n' $(1) $(2))

WARN    := -Wall -Wextra -Wshadow -Wvla -Wformat=2 -Wmissing-prototypes -Wstrict-prototypes -Werror
CPPFLAGS += -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DFUSE_USE_VERSION=314 -DS3VOL_VERSION='"$(VERSION)"'
CFLAGS  ?= -O2 -g
ALLCFLAGS = -std=gnu17 $(WARN) $(CPPFLAGS) $(CFLAGS) -pthread $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer) \
          $(shell pkg-config --cflags $(PKGS))
LIBS     = $(shell pkg-config --libs $(PKGS)) -pthread

src      = $(patsubst %.c,$(B)/%.o,$(wildcard $(1)/*.c))
STORE   := $(call src,store)
CACHE   := $(call src,cache)
FUSE    := $(call src,fuse)
UNIT    := $(patsubst %.c,$(B)/%,$(wildcard tests/unit/test_*.c))

all: $(B)/s3vol

$(B)/s3vol: $(FUSE) $(B)/cache.a $(B)/store.a
$(B)/store.a: $(STORE)
$(B)/cache.a: $(CACHE)
$(UNIT): $(B)/tests/unit/%: $(B)/tests/unit/%.o $(B)/cache.a $(B)/store.a
$(UNIT): LIBS += -lcmocka

$(B)/s3vol $(UNIT):
	$(call say,LD,$@)
	$(Q)$(CC) $(ALLCFLAGS) $(LDFLAGS) -o $@ $(filter %.o %.a,$^) $(LIBS)

$(B)/%.a:
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $^

$(B)/%.o: %.c Makefile
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D) && $(CC) $(ALLCFLAGS) -MMD -MP -c -o $@ $<

unit: $(UNIT)

clean:
	rm -rf build

.PHONY: all unit clean
.SECONDARY:
-include $(wildcard $(B)/*/*.d $(B)/*/*/*.d)
