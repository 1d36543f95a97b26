"""Measurements anyone can rerun: `python -m benchmarks.NAME [--quick]`.

Each prints a table and ends with one line of JSON that holds its figures by name.
"""
