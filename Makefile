# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# On a fresh Debian 12 with make and git:  make provision   a Docker host in a virtual machine
#                                          make test        everything that must pass

SHELL := /bin/sh
.DEFAULT_GOAL := help
.SUFFIXES:

# Debian's own Python first: a version manager's may lack what Debian's packages bring.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
VENV := $(CURDIR)/.venv
BUILD := $(CURDIR)/.build
TREE := $(BUILD)/ansible_collections/dockyard/machine
CLEAN_ROOT := $(BUILD)/installed

NAME ?= demo
DRIVER ?= qemu
IMAGE ?=

export PATH := $(VENV)/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export NO_COLOR := 1
export ANSIBLE_NOCOLOR := 1

# ansible-test wants the running interpreter's version; it is known once the environment exists.
PYVERSION = $(shell $(VENV)/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# The oldest Python on hosts that modules run on (tests/config.yml).
OLDEST_TARGET := 3.9
# Lint, build and import checks see the collection as users will: in a collections path, not in the checkout.
IN_TREE = cd $(TREE) && ANSIBLE_COLLECTIONS_PATH=$(BUILD)

.PHONY: help
help: ## Say what there is
	@echo 'make TARGET, where TARGET is one of'
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1	\2/p' Makefile | expand -t 20

##### Setting up

.PHONY: packages packages-test venv venv-dev
packages:
	@tests/tools/debian.sh local

packages-test:
	@tests/tools/debian.sh local test

$(VENV)/bin/python: | packages
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3")'
	$(PYTHON) -m venv $(VENV)

# The link lets playbooks and modules be found by their full names without ANSIBLE_COLLECTIONS_PATH.
$(VENV)/.linked: $(VENV)/bin/python
	@site=$$($(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
	    mkdir -p "$$site/ansible_collections/dockyard" && ln -sfn $(CURDIR) "$$site/ansible_collections/dockyard/machine"
	@touch $@

$(VENV)/.run: requirements.txt $(VENV)/.linked
	$(VENV)/bin/pip install -q 'ansible-core>=2.16' -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt requirements.txt tests/unit/requirements.txt tests/contract/requirements.txt meta/ee-requirements.txt $(VENV)/.linked
	$(VENV)/bin/pip install -q -r requirements-dev.txt
	@touch $@ $(VENV)/.run

venv: packages $(VENV)/.run ## An environment to run playbooks from: .venv
venv-dev: packages $(VENV)/.dev ## The same, with all that the tests need

##### A machine

.PHONY: provision remove
provision: venv ## A Docker host in a virtual machine (NAME=demo DRIVER=qemu IMAGE=path-or-URL)
	@tests/tools/provision.sh '$(NAME)' '$(DRIVER)' '$(IMAGE)'

remove: venv ## Remove that machine again (NAME=demo)
	ansible-playbook dockyard.machine.rm -e machine_name='$(NAME)'

##### Tests

# Roots, images and packages of the tests stay in this checkout.
export DOCKYARD_CACHE ?= $(BUILD)/cache/dockyard-tests
IMAGES := $(BUILD)/cache/dockyard/images
e2e: export XDG_CACHE_HOME := $(BUILD)/cache

.PHONY: test
test: packages-test venv-dev ## Everything, fast things first
	@$(VENV)/bin/python tests/tools/stages.py --behind image:e2e \
	    code units contract lint changelog docs sanity:20 build integration smoke molecule:25 e2e:30

.PHONY: tree code units contract lint changelog sanity build docs integration smoke matrix molecule image e2e
tree: venv-dev
	@$(VENV)/bin/python tests/tools/ansible_tree.py $(BUILD)

code: venv-dev ## ruff and mypy
	@mkdir -p $(BUILD)/link/ansible_collections/dockyard && ln -sfn ../../../.. $(BUILD)/link/ansible_collections/dockyard/machine
	@rc=0; export MYPYPATH=$(BUILD)/link; \
	echo 'ruff check'; ruff check --output-format concise . || rc=1; \
	echo 'ruff format'; ruff format --check . || rc=1; \
	echo 'mypy'; mypy $(BUILD)/link/ansible_collections/dockyard/machine/plugins || rc=1; \
	mypy tests/tools || rc=1; \
	exit $$rc

units: venv-dev ## Unit tests, in the checkout
	pytest -q -n 2 tests/unit

contract: venv-dev ## What every driver keeps to, against fake providers
	pytest -q -n 4 tests/contract

lint: tree ## ansible-lint with the production profile
	$(IN_TREE) ansible-lint --offline --profile production

changelog: tree
	cd $(TREE) && antsibull-changelog lint

sanity: tree ## ansible-test sanity
	cd $(TREE) && ansible-test sanity --local --python $(PYVERSION) --color no
	@oldest=$$(python tests/tools/matrix.py --which $(OLDEST_TARGET)); \
	if [ -n "$$oldest" ]; then \
	    cd $(TREE) && PATH="$(VENV)/bin:$$(dirname "$$oldest"):$$PATH" ansible-test sanity --color no \
	        --test compile --test import --target-python $(OLDEST_TARGET); \
	else echo 'Skipped: there is no Python $(OLDEST_TARGET) to compile and import modules with.'; fi

integration: tree ## ansible-test integration, every target
	@if [ -d $(TREE)/tests/integration/targets ]; then \
	    cd $(TREE) && ansible-test integration --local --python $(PYVERSION) --color no --allow-unsupported --allow-destructive; \
	else echo 'No integration targets.'; fi

# From the tarball on, nothing of the checkout is seen: HOME and the working folder are empty ones.
build: tree ## Build, check as Galaxy does, install into a clean path and run from there
	@tests/tools/installed.sh $(TREE) $(CLEAN_ROOT)

docs: tree ## Check the documentation of plugins, roles and guides
	$(IN_TREE) antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs=self .

smoke: tree ## Unit tests and playbooks on the oldest and the newest ansible-core
	@$(VENV)/bin/python tests/tools/matrix.py --tree $(BUILD) --ends

matrix: tree ## The same on every supported ansible-core
	@$(VENV)/bin/python tests/tools/matrix.py --tree $(BUILD)

molecule: venv-dev ## Roles against hosts with systemd
	@tests/tools/molecule.sh

image: venv ## A Debian cloud image for the tests
	ansible-playbook dockyard.machine.build_image -e image_tools=false -e image_cache_dir=$(IMAGES)

e2e: venv-dev ## One real virtual machine, from nothing to removed, and bad input
	pytest -v --import-mode=prepend tests/e2e

.PHONY: format clean
format: venv-dev ## Lay Python out as the tests expect it
	ruff check --fix --exit-zero --quiet .
	ruff format .

clean: ## Remove what make made; machines and images stay
	rm -rf $(BUILD) $(VENV) .mypy_cache .pytest_cache .ruff_cache tests/output
