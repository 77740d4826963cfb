# make demo   the whole way on the sample data, ending with a page to look at
# make test   lint, types, tests
# Both make their own environment; Python 3.11 and make are all they need.
PYTHON ?= python3.11
BIN := .venv/bin
export HF_HUB_OFFLINE := 1

CORPUS := data/corpus/train.jsonl data/corpus/validation.jsonl data/corpus/test.jsonl
BUNDLE := runs/interests/bundle/tagger.json
SEGMENTS := configs/segments/runners.yaml configs/segments/film-fans.yaml

.PHONY: demo test lint clean
.DELETE_ON_ERROR:

demo: out/report.html out/runners.csv out/film-fans-meta.csv
	@$(BIN)/penchant profile show u0001 --top 3
	@$(BIN)/penchant segment funnel configs/segments/film-fans.yaml
	@$(BIN)/penchant audit verify
	@echo "The demo's page: $(CURDIR)/out/report.html"

test: .venv/installed lint
	$(BIN)/pytest -n 2 --dist loadgroup

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv runs out

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

$(BUNDLE): .venv/installed configs/train-interests.yaml data/taxonomy.yaml $(CORPUS)
	$(BIN)/accelerate launch --num_processes 1 --mixed_precision no --dynamo_backend no --num_machines 1 train --config configs/train-interests.yaml

out/events/summary.json: .venv/installed data/events.yaml $(wildcard data/events/*)
	$(BIN)/penchant ingest data/events.yaml -o out/events

out/tags.parquet: $(BUNDLE) out/events/summary.json
	$(BIN)/penchant tag out/events --bundle runs/interests/bundle -o $@

# a week before the last event, then that week: segments change between
out/week.built: out/tags.parquet configs/policy.yaml $(SEGMENTS)
	rm -rf out/profiles out/profiles.choices out/segments
	$(BIN)/penchant profile build out/events out/tags.parquet --policy configs/policy.yaml --as-of 2026-06-22 -o out/profiles
	$(BIN)/penchant segment refresh $(SEGMENTS)
	@touch $@

out/profiles.built: out/week.built data/choices.csv
	$(BIN)/penchant profile update out/events out/tags.parquet --profiles out/profiles
	$(BIN)/penchant user load data/choices.csv
	$(BIN)/penchant segment refresh --all $(SEGMENTS)
	$(BIN)/penchant segment diff film-fans -o out/film-fans-diff
	@touch $@

out/runners.csv: out/profiles.built
	$(BIN)/penchant segment export configs/segments/runners.yaml -o $@

out/film-fans-meta.csv: out/profiles.built data/identities.csv
	$(BIN)/penchant segment export configs/segments/film-fans.yaml --destination meta --identities data/identities.csv -o $@

out/report.html: out/profiles.built configs/report.yaml
	$(BIN)/penchant profile evaluate --profiles out/profiles --truth data/events/truth.jsonl
	$(BIN)/penchant report --config configs/report.yaml -o $@
