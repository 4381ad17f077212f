"""Every page of the package, rendered and photographed to be looked at: `python -m docs.pictures DIR`.

The pages come from the real views, over a site of their own (`shown.py`), with users of `people.py`; `scenes.py` says
which pages, `shoot.py` takes them in each width, theme and language, and joins them into one sheet for each page. What
README and the docs show is taken by `docs/screenshots.py`, on the example site.
"""
