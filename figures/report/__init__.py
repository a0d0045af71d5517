"""A page about runs, in one HTML file: `python -m figures.report`."""
