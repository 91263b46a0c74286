# `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTOS := $(wildcard protos/fslr/advisor/v1/*.proto)
GENERATED := clients/python
MEASURED := recipes practice estimator overhead measurements scaling frameworks registry ablations adapters ideas references warm-ups noise base-widths
# All test targets: three processes for two cores, at most eight, each with a service and a Redis of its
# own. A third of their time is waiting.
WORKERS ?= $(shell cores=$$(nproc); echo $$(( cores < 6 ? (cores * 3 + 1) / 2 : 8 )))
# Files start in the order of their names: the long ones, tests/docs and tests/e2e, are first.
PYTEST = $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder \
	--ignore tests/packaging
# The longest part first: make uses both cores for these.
BUILT = types packages docs protos-check lint
# Generated code refuses runtimes older than its generator: the generator is pinned low on purpose.
PROTOC = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iprotos

# Each module is compiled once, not by each of hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-long check lint types protos protos-check protos-release \
	docs packages bench results results-measure fuzz chaos deploy-check clean

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@# Chromium is installed meanwhile.
	@{ command -v chromium >/dev/null \
		|| timeout 300 apt-get install --yes --quiet chromium >/dev/null 2>&1 \
		|| echo 'Chromium is not installed, so tests in a browser are skipped (apt-get install chromium).'; } & \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile \
		--constraint constraints.txt --editable '.[dev]'; status=$$?; wait; exit $$status
	@touch $@

demo: $(VENV)/installed ## Transfer a learning rate to a model 8 times wider, through the service (4 min)
	$(BIN)/python -m benchmarks demo

test: $(VENV)/installed ## Run the tests, with a real Redis and a real gRPC server
	$(PYTEST) -m 'not long'

test-long: $(VENV)/installed ## Tests that prove by long repetition, and twice as many examples of properties (2 to 7 min)
	$(PYTEST) --dist worksteal -m 'long or hypothesis' --hypothesis-profile long

check: $(VENV)/installed ## Everything that CI checks (7 to 15 min)
	$(MAKE) --no-print-directory --jobs 2 --output-sync $(BUILT)
	$(MAKE) --no-print-directory test

lint: $(VENV)/installed ## Style of Python; Dockerfile, compose files, manifests, alerts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python deploy/check.py

deploy-check: $(VENV)/installed ## What lint checks of deploy/, and the image: built and run (as root)
	$(BIN)/python deploy/check.py --image

types: $(VENV)/installed ## Strict types
	$(BIN)/mypy

docs: $(VENV)/installed ## Build the documentation site into out/docs/site, and check its links
	$(BIN)/python -m docs.generator

packages: $(VENV)/installed ## Build wheel and sdist, and run them in environments with nothing else
	$(BIN)/python -m pytest tests/packaging

protos: $(VENV)/installed ## Generate the Python code from the protos
	rm -f $(GENERATED)/fslr/advisor/v1/*_pb2*.py*
	$(PROTOC) --python_out=$(GENERATED) --mypy_out=quiet:$(GENERATED) $(PROTOS)
	$(PROTOC) --grpc_python_out=$(GENERATED) --mypy_grpc_out=quiet:$(GENERATED) \
		$(filter %_service.proto,$(PROTOS))

protos-check: $(VENV)/installed ## Contract: style, compatibility with the released one, generated code up to date
	$(BIN)/buf lint protos
	$(BIN)/buf format --diff --exit-code protos
	$(BIN)/buf breaking protos --against protos/released.binpb
	@rm -rf out/generated && mkdir -p out/generated
	@$(MAKE) --no-print-directory protos GENERATED=out/generated
	@diff -r -x '__*' out/generated/fslr/advisor/v1 clients/python/fslr/advisor/v1 \
		|| { echo 'The generated code is stale: run `make protos` and commit the result.'; exit 1; }

protos-release: $(VENV)/installed ## Make the present contract the one that later changes must not break
	$(BIN)/buf build protos --output protos/released.binpb

chaos: $(VENV)/installed ## Clients at work while faults are injected; what they were told is judged (about 6 min)
	$(BIN)/python -m tests.chaos

fuzz: $(VENV)/installed ## Random and odd requests to every method of the service, and led by coverage (about 6 min)
	$(BIN)/python -m tests.fuzz.guided
	$(BIN)/python -m pytest --hypothesis-profile fuzz tests/integration/test_fuzzing.py \
		tests/unit/harness/test_fuzz_inputs.py

bench: $(VENV)/installed ## Measure every estimator against exact rates (about 8 min)
	$(BIN)/python -m benchmarks estimator

results: $(VENV)/installed ## Write pages and pictures from benchmarks/results; print a quick form of practice (below 5 min)
	$(BIN)/python -m benchmarks results
	$(BIN)/python -m benchmarks practice --quick --resume out/practice

# Hours on 2 quiet cores: others 6, short 7, long-width 4, long-depth 5, long-mixed 4, long-experts 2,
# larger 4. Those of transfer are estimates from shorter trainings. Each part goes on where it was
# interrupted, and `others` leaves out the files that this commit has made, if nothing is changed
# since. Remove out/transfer and out/practice to train everything again.
TRANSFER = $(BIN)/python -m benchmarks transfer --again --resume out/transfer
results-measure: $(VENV)/installed ## Measure benchmarks/results again, in parts that fit a night: PART=others, short, long-width, long-depth, long-mixed, long-experts or larger
ifeq ($(PART),others)
	commit=$$($(BIN)/python -c 'import benchmarks.provenance as p; print(p.measuring_commit())'); \
	for each in $(MEASURED); do \
		file=benchmarks/results/$$each.json; \
		if [ "$${commit%-dirty}" = "$$commit" ] && grep -qs "^  \"commit\": \"$$commit\"" $$file; then \
			echo "$$file is of this commit"; continue; \
		fi; \
		case $$each in \
			practice | references | warm-ups) resume='--resume out/practice' ;; \
			base-widths) resume='--resume out/transfer' ;; \
			*) resume= ;; \
		esac; \
		$(BIN)/python -m benchmarks $$each $$resume --out $$file || exit 1; \
	done
	$(BIN)/python -m benchmarks demo
	cp out/demo/result.json benchmarks/results/demo.json
	cp out/demo/losses.png docs/images/demo-losses.png
	cp out/demo/rates.png docs/images/demo-rates.png
else ifeq ($(PART),larger)
	$(TRANSFER) --larger --out benchmarks/results/transfer-larger.json
else ifneq ($(PART),)
	$(TRANSFER) --part $(PART) --out benchmarks/results/transfer.json
else
	@echo 'Name a part: make results-measure PART=short; the comment above this target has all, with hours.'; exit 1
endif

clean: ## Remove the environment and all output
	rm -rf $(VENV) out
