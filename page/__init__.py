"""The live page: what `flicker up` shows in a browser, and finished results: `flicker show RESULT ...`.

    main.py        from flags to a server, and the page of one viewer; guard.py: who may use it
    source.py      the state of the running system: one thread polls for all viewers
    asking.py      client of the router: replicas, users, two models' slates
    now.py         the tabs, a file each: now.py (with its controls), playground.py, what_if.py, runs.py (finished
                   results and sweeps in folders, as settings to compare)
    parts.py       parts of tabs, and charts as options of ECharts; style.css: over the report's roles and macros

Browsers send what they like: values that are chosen or typed are looked at before use, and all text is escaped.
"""
