"""`flicker up`: the live system on one machine: store, trainer, replicas, router and load as processes, supervised.

up.py         startup, main loop, shutdown
flags.py      the flags
processes.py  which there are, with their commands and ports; each started, watched, restarted, stopped by its id
watch.py      what their metrics pages say, second by second
orders.py     what the live page may have done to them, by a socket (controls.py)
view.py       the terminal's picture of it
summary.py    result.json at the end
"""
