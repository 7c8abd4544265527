# Everything runs in .venv, which is made on first use. A fresh Debian 12 needs git, make, python3 and python3-venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV := $(VENV)/.installed-dev

.PHONY: help demo test check protos bench bench-save bench-check bench-front bench-options runtimes peers-env bench-peers show picture timelines clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 22

$(STAMP): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: python3 is missing: apt install python3 python3-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "make: Python 3.10 or newer is needed"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "make: venv is missing: apt install python3-venv"; exit 1; }
	@echo "installing into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[device]'
	@touch $@

$(DEV): $(STAMP)
	@echo "installing what tests and checks need"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[device,dev]'
	@touch $@

demo: $(STAMP)  ## a camera, a gateway, and an accelerator that fails (30 s)
	@$(BIN)/edgeway demo $(DEMO_ARGS)

test: $(DEV)  ## the test suite
	@$(BIN)/python -m pytest $(TEST_ARGS)

check: $(DEV)  ## ruff, mypy, import rules, fresh stubs
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python protos/generate.py --check

protos: $(DEV)  ## make the stubs from protos/edgeway/v1/*.proto
	@$(BIN)/python protos/generate.py

bench: $(DEV)  ## what the gateway costs against bare Python gRPC: all rows, bounds, aims (4 min)
	@$(BIN)/python -m benchmarks.bench $(BENCH_ARGS)

bench-save: $(DEV)  ## measure, and keep ratios, noise and machine in benchmarks/data/ratios.json
	@$(BIN)/python -m benchmarks.bench --save benchmarks/data/ratios.json $(BENCH_ARGS)

bench-check: $(DEV)  ## measure again; fail where a row is worse than the committed one by more than its noise
	@$(BIN)/python -m benchmarks.bench --check benchmarks/data/ratios.json $(BENCH_ARGS)

bench-front: $(DEV)  ## variants of the gateway's front against the shipped one (30 min; FRONT_ARGS=--short: 4 min)
	@$(BIN)/python -m benchmarks.front $(FRONT_ARGS)

bench-options: $(DEV)  ## options of the CPU's sessions at batch 1, each against those that ship (1 min)
	@$(BIN)/python -m benchmarks.options $(OPTIONS_ARGS)

runtimes: $(DEV)  ## environments of workers with other runtimes (in .runtimes/; RUNTIMES="litert openvino": only those)
	@$(BIN)/python -m benchmarks.runtimes $(RUNTIMES)

peers-env: $(DEV)  ## environments of the servers that bench-peers compares with (1.5 GB in .peers/)
	@$(BIN)/python -m benchmarks.peers.environments

bench-peers: $(DEV)  ## against MLServer, KServe and Triton: same client, same models (20 min; PEERS_ARGS=--short)
	@$(BIN)/python -m benchmarks.peers $(PEERS_ARGS)

show:  ## list the show-NAME commands: each prints a figure, its bound and a control
	@grep -hE '^show-[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 22

show-demo: $(STAMP)  ## 30 s of camera: no failure, 95 % in budget, the model's accuracy
	@$(BIN)/edgeway demo --plain

show-clients: $(DEV)  ## stock tritonclient and kserve over TCP and Unix socket
	@$(BIN)/python -m benchmarks.show.clients

show-conformance: $(DEV)  ## the ONNX node tests through the gateway
	@$(BIN)/python -m benchmarks.show.conformance

show-mixing: $(DEV)  ## models beside each other; 200 at once; calls given up
	@$(BIN)/python -m benchmarks.show.mixing

show-workers: $(DEV)  ## SIGKILL of the CPU worker under load
	@$(BIN)/python -m benchmarks.show.workers

show-hang: $(DEV)  ## a hung accelerator, by SIGSTOP and inside a run: in budget, and replaced
	@$(BIN)/python -m benchmarks.show.hang

show-kill: $(DEV)  ## the accelerator killed every 2 s: no errors, in budget, back each time (2.5 min)
	@$(BIN)/python -m benchmarks.show.kill

show-refusal: $(DEV)  ## a budget of 1 ms on a 5 ms model: refused at once, no worker sees it, nobody feels it (2 min)
	@$(BIN)/python -m benchmarks.show.refusal

show-overload: $(DEV)  ## three times the capacity, three classes: the high one in budget, goodput kept (4 min)
	@$(BIN)/python -m benchmarks.show.overload

show-heat: $(DEV)  ## a ramp to throttling and back, lying sensors, a throttle that no sensor shows (1.5 min)
	@$(BIN)/python -m benchmarks.show.heat

show-never: $(DEV)  ## degrade=never through all troubles; what answers say of their time adds up
	@$(BIN)/python -m benchmarks.show.never

show-poison: $(DEV)  ## a request that kills its worker: two deaths, never a third
	@$(BIN)/python -m benchmarks.show.poison

show-replay: $(DEV)  ## every decision of a run with trouble, made again from its journal
	@$(BIN)/python -m benchmarks.show.replay

show-swap: $(DEV)  ## 50 swaps at 100 requests/s; p99 of a running model while others are loaded (3 min)
	@$(BIN)/python -m benchmarks.show.swap

show-lifecycle: $(DEV)  ## SIGKILL, a second gateway, SIGTERM
	@$(BIN)/python -m benchmarks.show.lifecycle

show-bad-input: $(DEV)  ## bad requests: codes, messages, nobody falls
	@$(BIN)/python -m benchmarks.show.bad_input

show-shared-memory: $(DEV)  ## tensors in shared memory: saved time, no touch by the gateway, hostile clients (2 min)
	@$(BIN)/python -m benchmarks.show.shared_memory

show-gpu-trap: $(DEV)  ## TensorRT or CUDA missing: onnxruntime runs on the CPU unseen, here it is unavailable, because ...
	@$(BIN)/python -m benchmarks.show.gpu_trap

show-npu-trap: $(DEV)  ## QNN listed first while the CPU computes: here it is unavailable, because ... (after make runtimes)
	@$(BIN)/python -m benchmarks.show.npu_trap

show-model-files: $(DEV)  ## wrong model files are refused, the version before serves
	@$(BIN)/python -m benchmarks.show.model_files

show-canary: $(DEV)  ## bad versions on trial are left in time, also across a SIGKILL; a hot chip is no reason (8 min)
	@$(BIN)/python -m benchmarks.show.canary

show-disk-faults: $(DEV)  ## every n-th open, write, fsync, rename fails: the version before serves (1 min)
	@$(BIN)/python -m benchmarks.show.disk_faults

show-power-cuts: $(DEV)  ## 100 power cuts while versions are installed, promoted, rolled back; as root (3 min)
	@$(BIN)/python -m benchmarks.show.power_cuts

show-remote: $(DEV)  ## remote targets killed and stopped mid-traffic: a second Edgeway, and Triton (after make peers-env)
	@$(BIN)/python -m benchmarks.show.remote

show-split: $(DEV)  ## shares exact in every hundred, 10,000 keys that move only where they must (2 min)
	@$(BIN)/python -m benchmarks.show.split

show-commands: $(DEV)  ## 32 operators at once on one deployment: no deadlock, the last command holds, others serve
	@$(BIN)/python -m benchmarks.show.commands

show-fetch: $(DEV)  ## a link cut 20 times in 50 MB; endless, wrong, redirected, changed files: refused
	@$(BIN)/python -m benchmarks.show.fetch

show-shadow: $(DEV)  ## shadow versions that are slow or deadly: nobody waits for them, and their agreement says it (2 min)
	@$(BIN)/python -m benchmarks.show.shadow

show-doctor: $(DEV)  ## every backend with its reason; pieces hidden, broken and hung: never a traceback (3 min)
	@$(BIN)/python -m benchmarks.show.doctor $(SHOW_ARGS)

show-overhead: $(DEV)  ## what the gateway adds to bare Python gRPC
	@$(BIN)/python -m benchmarks.bench small frame

show-hot-path: $(DEV)  ## 64 B to 4.9 MB and the hop to a worker, against bare gRPC, direct and a thread (2 min)
	@$(BIN)/python -m benchmarks.bench small frame image large hop

show-third-party: $(DEV)  ## a backend of a package of its own: found by doctor, serves, holds the contract
	@$(BIN)/python -m benchmarks.show.third_party

show-load-cycles: $(DEV)  ## a model loaded and unloaded 1,000 times: memory as after the tenth; a planted leak is seen (5 min)
	@$(BIN)/python -m benchmarks.show.load_cycles

show-public-models: $(DEV)  ## ONNX and .tflite models of public packages: as from the runtime alone, to the bit (downloads 34 MB)
	@$(BIN)/python -m benchmarks.show.public_models

show-runtimes: $(DEV)  ## one deployment on cpu, litert, openvino and the QNN emulator: they agree; killed, none fails (5 min)
	@$(BIN)/python -m benchmarks.show.runtimes

show-wake-words: $(DEV)  ## models that remember, of a public package: as from the runtime alone, to the bit (downloads 2 MB)
	@$(BIN)/python -m benchmarks.show.wake_words

show-regions: $(DEV)  ## frames in shared memory against the same model without a gateway, and whether size matters
	@$(BIN)/python -m benchmarks.bench frame-shm large-shm frame-sealed large-sealed bare-sealed size $(BENCH_ARGS)

show-tail: $(DEV)  ## p99 over p50 of a 5 ms model at 100 requests a second, against the same without a gateway
	@$(BIN)/python -m benchmarks.bench tail $(BENCH_ARGS)

show-copies: $(DEV)  ## copies of tensor bytes per request, counted in pages; one copy more is seen
	@$(BIN)/python -m benchmarks.show.copies

show-faults: $(DEV)  ## page faults of the gateway per request; beside a server with the allocator as it is
	@$(BIN)/python -m benchmarks.show.faults

show-batching: $(DEV)  ## requests that share a run of the model: answers per second, and the wait of a lone one
	@$(BIN)/python -m benchmarks.show.batching

show-drift: $(DEV)  ## a camera that is turned: alarms, false alarms, accuracy by late labels (2 min)
	@$(BIN)/python -m benchmarks.show.drift

show-runpath: $(DEV)  ## what a worker adds to ONNX Runtime, alone over its link
	@$(BIN)/python -m benchmarks.runpath

show-start: $(DEV)  ## from launch to the first answer, beside one Python gRPC process
	@$(BIN)/python -m benchmarks.start

show-memory: $(DEV)  ## memory of gateway and worker after 10 000 frames, page faults of a request (1 min)
	@$(BIN)/python -m benchmarks.memory

show-peers: $(DEV)  ## latency, CPU, memory and start against MLServer, KServe and Triton (20 min)
	@$(BIN)/python -m benchmarks.peers -o bounds $(PEERS_ARGS)

show-estimates: $(DEV)  ## predicted run times: error, coverage, how fast a change is followed
	@$(BIN)/python -m benchmarks.estimates -o bounds

timelines: $(DEV)  ## docs/failover.md and its pictures from real runs (4 min)
	@$(BIN)/python -m benchmarks.timelines

picture: $(STAMP)  ## docs/demo.svg from a real run
	@$(BIN)/edgeway demo --svg docs/demo.svg

clean:  ## remove what make made
	rm -rf $(VENV) .peers .runtimes build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
