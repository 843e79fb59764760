.PHONY: style quality test soak versions audit bench

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

versions:  ## all tests with the lowest and the newest dependencies; benchmarks/versions.py has the other Pythons
	python -m pip install -q uv
	python -m benchmarks.versions --python 3.10 --resolution lowest-direct
	python docs/render.py
	python -m benchmarks.versions --python 3.13 --resolution highest
	python docs/render.py

audit:  ## known advisories about the dependencies; asks the network
	python -m pip install -q pip-audit
	python -m pip_audit --local

bench:  ## a quick benchmark; docs/recipes.md has the long ones
	python -m dataset_scripts.contrast_tweets --output_dir data/contrast_tweets
	python -m benchmarks.run_recipes recipes/contrast_tweets/text_only.yaml recipes/contrast_tweets/umgf.yaml --seeds 1
