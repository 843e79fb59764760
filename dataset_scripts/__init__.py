"""Commands that make, read, enrich and check datasets of tweets with pictures: `python -m dataset_scripts.X --help`."""
