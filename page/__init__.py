"""The live page: what `flicker up` shows in a browser, and finished results: `flicker show RESULT ...`.

main.py        flags, and a server from them; guard.py: who may ask it
site.py        the page itself: its four tabs, and the banner when something is away
"""
