.PHONY: style quality test soak bench

style:  ## format, and repair what can be repaired
	ruff check --fix .
	ruff format .

quality:  ## what CI checks besides the tests
	ruff check .
	ruff format --check .

test:
	python -m pytest -n 2

soak:  ## the long tests of reliability; their figures go to benchmarks/reliability and docs/reliability.md
	OMP_NUM_THREADS=1 python -m pytest -m soak
	python docs/render.py

bench:  ## the quick benchmarks; the long runs are listed in docs/results.md
	python -m benchmarks.run_seeds contrast_tweets dataset_scripts/contrast_tweets.yaml --seeds 1
