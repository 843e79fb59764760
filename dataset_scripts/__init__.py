"""Commands that make, read, enrich and check datasets of posts with pictures: `python -m dataset_scripts.X --help`.

Each module beside this file is a command; the folders hold what the commands are made of.
"""
