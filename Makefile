.PHONY: style quality test bench

style:  ## format, and repair what can be repaired
	ruff check --fix .
	ruff format .

quality:  ## what CI checks besides the tests
	ruff check .
	ruff format --check .

test:
	python -m pytest -n 2

bench:  ## the quick benchmarks; the long runs are listed in docs/results.md
	python -m benchmarks.run_seeds contrast_tweets dataset_scripts/contrast_tweets.yaml --seeds 1
