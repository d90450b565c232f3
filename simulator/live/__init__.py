"""`flicker up`: the live system on one machine: store, trainer, replicas, router and load as processes, supervised.

up.py         startup, main loop, shutdown
flags.py      the flags
plan.py       which processes there are: their commands, ports and environment
children.py   one process each: started, watched, restarted, stopped by its process id
gauges.py     what the processes' metrics pages say, as plain numbers
view.py       the terminal's picture of it
summary.py    result.json at the end
"""
