# Every target first makes the virtual environment .venv, if it is missing or its requirements have changed.

PYTHON = python3
BIN = .venv/bin
INSTALLED = .venv/installed
OLDEST = .venv-oldest

# The tests that compute, in whose results other instructions and more threads show as rounding.
COMPUTING = tests/layers tests/network tests/structure tests/system tests/solvers tests/simulation tests/learning \
	tests/train tests/models tests/analysis

.PHONY: convergence reproduction test test-portable test-oldest attack lint docs browser bench peers clean

convergence: $(INSTALLED)
	@echo "Running the convergence study ..."
	@$(BIN)/python studies/convergence.py

# Every study, on the digits of MNIST of a folder: make reproduction NEURODYN_DATA=FOLDER. It goes on where it was.
reproduction: $(INSTALLED)
	@echo "Running every study, two at a time, within two hours, and writing docs/REPRODUCTION.md ..."
	@$(if $(NEURODYN_DATA),NEURODYN_DATA=$(NEURODYN_DATA) )$(BIN)/python studies/reproduction.py

# Two processes of one thread each: small tensors gain nothing from more threads. What a file shares is made once.
test: $(INSTALLED)
	@echo "Running the tests ..."
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not browser"

# Some of them only: make test-portable COMPUTING=tests/solvers
test-portable: $(INSTALLED)
	@echo "Running the tests that compute as other processors would ..."
	@$(BIN)/python tests/portable.py $(COMPUTING)

# The oldest versions that pyproject.toml allows; matplotlib of that age uses what newer releases of pyparsing warn of.
test-oldest:
	@echo "Installing the oldest versions that neurodyn takes into $(OLDEST); the first time, this takes some minutes ..."
	@$(PYTHON) -m venv $(OLDEST)
	@grep -o '"[a-z][a-z0-9-]*>=[0-9.]*"' pyproject.toml | sed 's/"//g; s/>=/==/' > $(OLDEST)/constraints.txt
	@echo 'pyparsing<3.3' >> $(OLDEST)/constraints.txt
	@$(OLDEST)/bin/python -m pip install --quiet --upgrade --constraint $(OLDEST)/constraints.txt setuptools
	@PYTHONWARNINGS=ignore $(OLDEST)/bin/python -m pip install --quiet --constraint $(OLDEST)/constraints.txt \
		--no-build-isolation --editable '.[all,test]'
	@echo "Running the tests with them ..."
	@OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -q -n 2 --dist loadfile

# With other cases: make attack SEED=3
attack: $(INSTALLED)
	@echo "Attacking the library with wrong calls, random networks, kills and damaged files ..."
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.attack $(if $(SEED),--seed $(SEED))

lint: $(INSTALLED)
	@echo "Checking style and types ..."
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-logo --no-cache
	@$(BIN)/mypy neurodyn .venv/mypy/neurodyn/models $(wildcard studies tests benchmarks)

# Its pages of code run as it is built; only those that have changed, the next time. It needs no network to be read.
docs: $(INSTALLED)
	@echo "Installing what builds the site; the first time, this takes a minute ..."
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[docs]'
	@echo "Building the site ..."
	@rm -rf docs/reference/generated docs/_build/html/_modules # where names that are public no longer would stay
	@OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -q -W --keep-going -j 2 -b html docs docs/_build/html
	@$(BIN)/python docs/_ext/links.py docs/_build/html
	@echo "It is in docs/_build/html/index.html."

# The pages of nd.view, in the Chromium of the system's packages: apt install chromium
browser: $(INSTALLED)
	@echo "Installing what drives a browser ..."
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[browser]'
	@echo "Testing the pages in a browser ..."
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 0 -m browser tests/view

bench: $(INSTALLED)
	@echo "Running the benchmarks ..."
	@$(BIN)/python benchmarks/run.py

# diffrax with JAX, and torchode, in an environment of their own, for the benchmarks to compare with.
peers:
	@echo "Installing the peers into .venv-peers ..."
	@$(PYTHON) -m venv .venv-peers
	@.venv-peers/bin/python -m pip install --quiet --requirement benchmarks/peers.txt

clean:
	@echo "Removing the environment, caches and build products; results/ stays ..."
	@rm -rf .venv $(OLDEST) build dist docs/_build docs/reference/generated *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "neurodyn needs Python 3.11 or newer, and $(PYTHON) is none. Name one: make PYTHON=python3.12" >&2; \
		exit 1; }
	@echo "Installing neurodyn and what it needs into .venv; the first time, this takes some minutes ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt pip setuptools
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --constraint constraints.txt \
		--no-build-isolation --editable '.[all,lint,test]' # setuptools warns of every editable install
	@mkdir -p .venv/mypy/neurodyn
	@ln -sfn ../../../models .venv/mypy/neurodyn/models
	@touch $@
