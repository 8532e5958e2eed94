PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-fast lint format clean

# the environment, installed again when setup.py changes
$(VENV)/.demo: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -e '.[mmseg,report]'
	touch $@

$(VENV)/.test: $(VENV)/.demo
	$(BIN)/python -m pip install -q -e '.[mmseg,test]'
	touch $@

demo: $(VENV)/.demo
	$(BIN)/python -m effseg.demo data/demo
	$(BIN)/python tools/train.py configs/fpn_effformer_l1_demo.py
	$(BIN)/python tools/test.py configs/fpn_effformer_l1_demo.py work_dirs/fpn_effformer_l1_demo/best.pth
	$(BIN)/python tools/predict.py configs/fpn_effformer_l1_demo.py work_dirs/fpn_effformer_l1_demo/best.pth data/demo/images/val --out-dir work_dirs/fpn_effformer_l1_demo/predictions
	$(BIN)/python tools/report.py configs/fpn_effformer_l1_demo.py work_dirs/fpn_effformer_l1_demo/best.pth --fused
	@echo "Open work_dirs/fpn_effformer_l1_demo/report/report.html in a browser; the images are in work_dirs/fpn_effformer_l1_demo/predictions"

# two processes of one thread each: the networks of the tests are too small for more
test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-fast: $(VENV)/.test
	$(BIN)/python -m pytest -m 'not slow and not medium' tests/models tests/fusion tests/test_stack.py tests/test_imports.py tests/test_configs.py

# the type checker reads torch's and numpy's types, so it stands in the environment of the tests
$(VENV)/.lint: $(VENV)/.test
	$(BIN)/python -m pip install -q -e '.[mmseg,lint]'
	touch $@

lint: $(VENV)/.lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.lint
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) work_dirs data/demo
