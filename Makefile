.PHONY: style quality test audit bench

style:  ## format, and repair what can be repaired
	ruff check --fix .
	ruff format .

quality:  ## what CI checks besides the tests
	ruff check .
	ruff format --check .

test:
	python -m pytest -n 2

audit:  ## known advisories about the dependencies; asks the network
	python -m pip install -q pip-audit
	python -m pip_audit --local

bench:  ## a quick benchmark; docs/recipes.md has the long ones
	python -m dataset_scripts.contrast_tweets --output_dir data/contrast_tweets
	python -m benchmarks.run_recipes recipes/contrast_tweets/text_only.yaml recipes/contrast_tweets/umgf.yaml --seeds 1
