"""Datasets of posts and results of long computations -> folders on disk."""
