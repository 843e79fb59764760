"""Columns that models compute from words and pictures."""
