.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo measure test test-fast test-apps fuzz reliability sbom audit android lint bench arm64 npu gpu \
  coreai browser devices-test clean

help:  ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

# torch comes first and pinned, so that nothing else pulls a multi-gigabyte CUDA build.
# On a plain Linux machine the usual index has a CUDA build of several gigabytes; TORCH_INDEX names another.
TORCH_INDEX ?=
# pip would compile on one core. Some packages have templates among their modules that are no Python.
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile
$(VENV)/ready: requirements.lock metrics.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	$(PIP) --no-deps --require-hashes -r requirements.lock
	$(PIP) --no-deps --require-hashes -r metrics.lock
	$(PIP) --no-deps --editable .
	$(BIN)/python -m elir_mobile.faces.detect >/dev/null
	$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	touch $@

demo: $(VENV)/ready  ## quantize, export, run and compare the bundled face-restoration model
	$(BIN)/python -m quant.ptq --task bfr

measure: $(VENV)/ready  ## run every file of the bundle that make demo wrote: speed, memory, parity, quality
	$(BIN)/python -m elir_mobile.harness out/bfr-demo

# Files go to the processes in the order of tests/conftest.py, the longest first.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
test: $(VENV)/ready  ## run the tests
	$(PYTEST) -m "not devices" --durations 25

test-fast: $(VENV)/ready  ## those that lower no file and start no command: four minutes
	$(PYTEST) -m "not devices and not lowering and not processes"

test-apps: $(VENV)/ready  ## check the Android and the iOS app as far as this machine can
	@for check in android_demo/test.sh ios_demo/test.sh; do \
	  if [ -x $$check ]; then PYTHON=$(BIN)/python $$check || exit 1; fi; done

SECONDS ?= 300
fuzz: $(VENV)/ready  ## fuzz every parser, SECONDS=300 each (docs/reliability.md)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --seconds $(SECONDS)

reliability: $(VENV)/ready  ## fuzzers, killed and starved commands, many pictures: counted, in 20 minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.reliability

# In an environment of their own: they must not move what they list.
$(VENV)/tools: $(VENV)/ready
	$(PYTHON) -m venv $@
	$@/bin/pip install --quiet cyclonedx-bom==7.5.0 pip-audit==2.10.1

sbom: $(VENV)/tools  ## write what the environment is made of, CycloneDX: out/sbom.json
	mkdir -p out
	$(VENV)/tools/bin/cyclonedx-py environment $(BIN)/python --output-file out/sbom.json

audit: $(VENV)/tools  ## ask PyPI for known faults of what the lock names
	$(VENV)/tools/bin/pip-audit --disable-pip --no-deps --requirement requirements.lock

android: $(VENV)/ready  ## build the Android app with the demo bundle inside, without Gradle
	$(BIN)/python -m android_demo.build

lint: $(VENV)/ready  ## ruff, mypy, and which way imports go
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/ready  ## the released 37.5 M network at 512 pixels, random weights: size and speed
	$(BIN)/python -m benchmarks.released --task bfr

arm64: $(VENV)/ready  ## set up the emulated arm64 device in the cache (docs/devices.md)
	$(BIN)/python -m elir_mobile.devices.arm64

npu: $(VENV)/ready  ## fetch Qualcomm's NPU compiler and emulator, 98 MB, under Qualcomm's licence (docs/chips.md)
	$(PIP) --no-deps --require-hashes -r npu.lock

coreai: $(VENV)/ready  ## fetch Apple's Core AI converter and runtime, betas, 63 MB (docs/coreml.md)
	$(PIP) --no-deps --require-hashes -r coreai.lock

gpu:  ## install a GPU in software, SwiftShader of Debian's Chromium (docs/chips.md)
	apt-get update -qq && apt-get install -y -qq chromium

browser: $(VENV)/ready  ## fetch LiteRT.js for the browser device and the page (docs/devices.md)
	$(BIN)/python -m elir_mobile.devices.browser --set-up

devices-test: arm64 browser gpu npu coreai  ## set up every device and chip that this machine can have, and test them
	$(BIN)/python -m tests.adbd
	$(BIN)/python -m pytest tests/test_devices.py tests/test_litert_gpu.py tests/test_qnn.py \
	  tests/test_coreai.py tests/test_page_faces.py -rs

clean:  ## remove the environment and the outputs
	rm -rf $(VENV) out
