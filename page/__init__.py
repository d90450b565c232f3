"""The live page: what `flicker up` shows in a browser, and finished results: `flicker show RESULT ...`.

    main.py        from flags (flags.py) to a server; guard.py: who may use it
    source.py      the state of the running system: one thread polls for all viewers
    asking.py      client of the router: replicas, users, two models' slates
    results.py     finished results and sweeps in folders, as settings to compare
    site.py        the page of one viewer: its tabs, a file each: now.py (with controls.py), playground.py, what_if.py,
                   runs.py
    parts.py       parts of tabs; charts.py: options of ECharts; style.css: over the report's roles and macros

Browsers send what they like: values that are chosen or typed are looked at before use, and all text is escaped.
"""
