"""
The benchmark: `make bench`.
"""
