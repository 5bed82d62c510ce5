"""What every run shares: configuration, records, finished work, parallel, command line, figures.

Imports nothing else of the package.
"""
